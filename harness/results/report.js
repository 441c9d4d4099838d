const filter = document.getElementById("filter");
const boxes = [...document.querySelectorAll("input[name=verdict]")];
const cases = [...document.querySelectorAll("details.case")];
const texts = cases.map((c) => c.querySelector("summary").textContent.toLowerCase());
const shown = document.getElementById("shown");
function apply() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const verdicts = new Set(boxes.filter((b) => b.checked).map((b) => b.value));
  let number = 0;
  cases.forEach((c, i) => {
    const fits = verdicts.has(c.dataset.verdict) && words.every((w) => texts[i].includes(w));
    c.hidden = !fits;
    number += fits;
  });
  document.querySelectorAll("section.plan").forEach((s) => {
    s.hidden = !s.querySelector("details.case:not([hidden])");
  });
  shown.textContent = number === cases.length ? `${number} cases` : `${number} of ${cases.length} cases`;
}
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.matches("details.case")) {
    if (target.hidden || target.closest("section.plan").hidden) {
      filter.value = "";
      boxes.forEach((b) => { b.checked = true; });
      apply();
    }
    target.open = true;
    target.scrollIntoView();
  }
}
filter.addEventListener("input", apply);
boxes.forEach((b) => b.addEventListener("change", apply));
document.getElementById("open").addEventListener("click", () => {
  const visible = cases.filter((c) => !c.hidden);
  const open = !visible.every((c) => c.open);
  visible.forEach((c) => { c.open = open; });
});
addEventListener("hashchange", reveal);
document.getElementById("tools").hidden = false;
apply();
reveal();
