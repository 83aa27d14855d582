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

// Pointing at a finding, or moving to its number, shows its explanation and lights up what it is matched with.
function point(mark) {
  for (const tip of document.querySelectorAll(".crimson .tip.shown")) tip.classList.remove("shown");
  for (const other of document.querySelectorAll(".crimson .mark.lit")) other.classList.remove("lit");
  if (!mark) return;
  document.getElementById(`tip-${mark.dataset.mark}`)?.classList.add("shown");
  const { group } = mark.dataset;
  const lit = group ? `[data-group="${group}"]` : `[data-mark="${mark.dataset.mark}"]`;
  for (const other of mark.closest(".crimson").querySelectorAll(lit)) other.classList.add("lit");
}
for (const kind of ["mouseover", "focusin"]) {
  document.addEventListener(kind, (event) => point(event.target.closest?.(".crimson .mark[data-mark]")));
}
