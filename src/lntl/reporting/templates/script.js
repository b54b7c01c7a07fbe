"use strict";

// A click on a header sorts its table: numbers by data-value, texts alphabetically; missing values stay last.
function sortBy(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const column = header.cellIndex;
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const key = (row) => {
    const cell = row.cells[column];
    const value = cell.dataset.value;
    return value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value);
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
    return ascending ? order : -order;
  };
  body.append(...[...body.rows].sort(compare));
}

document.documentElement.classList.add("js");
for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}

// Let the keyboard focus boxes that scroll sideways, so that it can scroll them.
function makeFocusable() {
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
makeFocusable();
addEventListener("resize", makeFocusable);
document.addEventListener("toggle", makeFocusable, true);

// A link to a closed part opens it; printing opens all parts.
function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) {
    const part = target.closest("details");
    if (part) part.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", openTarget);
openTarget();
let closed = [];
addEventListener("beforeprint", () => {
  const parts = [...document.querySelectorAll("details:not([open])")];
  for (const part of parts) part.open = true;
  closed.push(...parts);
});
addEventListener("afterprint", () => {
  for (const part of closed) part.open = false;
  closed = [];
});
