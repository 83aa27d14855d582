"""The Gradio Space in a browser. It contains no scoring logic: scores, terms and statistics come from `crimson_core`."""
