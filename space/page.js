// Ctrl+Enter (Cmd+Enter) in the tab "One pair" scores the pair; Escape closes an explanation.
document.addEventListener("keydown", (event) => {
  const button = document.querySelector("#score");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && button?.offsetParent) {
    event.preventDefault();
    button.click();
  }
  if (event.key === "Escape") {
    point(null);
    if (document.activeElement?.matches(".crimson .chip")) document.activeElement.blur();
  }
});
