// Draws the figures. A printer gets them as narrow as its columns, and all that is folded unfolded.
const plots = [...document.querySelectorAll(".plot")];
for (const plot of plots) {
  const { data, layout } = JSON.parse(plot.dataset.figure);
  Plotly.newPlot(plot, data, layout, { responsive: true, displayModeBar: false });
}
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  for (const plot of plots) Plotly.relayout(plot, { width: 310 });
});
window.addEventListener("afterprint", () => {
  for (const plot of plots) Plotly.relayout(plot, { width: null, autosize: true });
});
