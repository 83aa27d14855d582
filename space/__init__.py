"""The Gradio Space in a browser. It has no scoring logic: scores, terms and statistics come from `crimson_core`."""
