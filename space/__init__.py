"""The Gradio Space in a browser. It holds no scoring logic: scores, terms and statistics come from `crimson_core`."""
