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
