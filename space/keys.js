// Ctrl+Enter (Cmd+Enter) in a text field of the tab "One pair" scores the pair.
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    const button = document.querySelector("#score");
    if (button && button.offsetParent) { event.preventDefault(); button.click(); }
  }
});
