"use strict";
// Extras only: the page says everything without them. Sorts tables, filters the table of runs, shows figures large.
document.documentElement.classList.add("scripted");

// A cell with data-sort holds the number that it sorts by, or nothing; other cells sort by their text.
const value = (cell) => {
  if (cell.dataset.sort === undefined) return cell.textContent.trim();
  return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
const sort = (body, column, down) => {
  const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
  const [known, unknown] = [rows.filter(([found]) => found !== null), rows.filter(([found]) => found === null)];
  known.sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
  body.append(...[...known, ...unknown].map(([, row]) => row)); // rows without a value come last in both directions
};
// What is long is text in <noscript> until it is needed: a browser takes a second for the elements of a thousand runs.
const parsed = (later) => {
  const template = document.createElement("template");
  template.innerHTML = later.textContent;
  return template.content;
};
// A long table shows its first rows until the reader asks for all: sorting a thousand visible rows takes a second.
const MOST_ROWS = 100;
const longTables = new Map(); // table → load(): turns its other rows into elements; show(): shows as many as wanted
const shorten = (table) => {
  const next = table.parentElement.nextElementSibling;
  let rest = next?.matches("noscript.rest") ? next : null;
  const more = document.createElement("button");
  more.type = "button";
  more.className = "more";
  let most = MOST_ROWS;
  const load = () => {
    if (!rest) return;
    table.tBodies[0].append(...parsed(rest).querySelector("tbody").rows);
    rest.remove();
    rest = null;
  };
  const show = () => {
    let matching = 0;
    for (const row of table.tBodies[0].rows) {
      matching += row.hidden ? 0 : 1;
      row.classList.toggle("beyond", matching > most);
    }
    if (rest) matching += Number(rest.dataset.rows);
    table.parentElement.classList.toggle("few", matching <= MOST_ROWS || most <= MOST_ROWS);
    more.hidden = matching <= most;
    more.textContent = `Show all ${matching} rows`;
  };
  more.addEventListener("click", () => {
    load();
    most = Infinity;
    show();
  });
  table.parentElement.after(more);
  show();
  longTables.set(table, { load, show });
};
const sortable = (table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      longTables.get(table).load();
      sort(table.tBodies[0], column, down);
      longTables.get(table).show();
    });
  });
};

for (const field of document.querySelectorAll("input[data-filters]")) {
  const table = document.getElementById(field.dataset.filters);
  const count = document.getElementById(field.getAttribute("aria-describedby"));
  let rows = null; // with their texts, from the first letter on
  field.addEventListener("input", () => {
    longTables.get(table).load();
    rows ??= [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let matching = 0;
    for (const [row, text] of rows) {
      row.hidden = !wanted.every((word) => text.includes(word));
      matching += row.hidden ? 0 : 1;
    }
    count.textContent = `${matching} of ${rows.length} rows match`;
    longTables.get(table).show();
  });
}

// A table that is wider than the column of text gets the page's whole width, and a mark if that is too little. In the next
// frame, since both change the box that is being observed.
const sizes = new ResizeObserver((entries) => {
  requestAnimationFrame(() => {
    for (const box of new Set(entries.map((entry) => entry.target.closest(".scroll")))) {
      const tooWide = () => box.scrollWidth > box.clientWidth + 1;
      box.classList.remove("broad", "wider");
      box.classList.toggle("broad", tooWide());
      box.classList.toggle("wider", tooWide());
    }
  });
});
const prepareTables = (part) => {
  for (const table of part.querySelectorAll(".scroll > table")) {
    sizes.observe(table);
    sizes.observe(table.parentElement);
  }
  for (const table of part.querySelectorAll("table[data-sortable]")) sortable(table);
  for (const table of part.querySelectorAll("table[data-sortable], .scroll:has(+ noscript.rest) > table")) shorten(table);
};
prepareTables(document);

// Folded details of many rows become elements when they are opened, and all that is left before the page is printed.
const unfold = (details) => {
  const later = details.querySelector(":scope > noscript");
  if (!later) return;
  later.replaceWith(parsed(later));
  prepareTables(details);
};
for (const details of document.querySelectorAll("details:has(> noscript)")) {
  details.addEventListener("toggle", () => details.open && unfold(details));
}
addEventListener("beforeprint", () => {
  for (const { load, show } of longTables.values()) {
    load();
    show();
  }
  for (const details of document.querySelectorAll("details")) unfold(details);
});

// The numbers of the setting under the pointer or the focus.
for (const figure of document.querySelectorAll("figure.map")) {
  const readout = figure.querySelector(".readout");
  const pointed = "Point at a setting, or move to it with the Tab key, for its numbers.";
  const hint = matchMedia("(hover: none)").matches ? "Tap a setting for its numbers." : pointed;
  readout.textContent = hint;
  const show = (event) => {
    const found = event.target.closest("[data-numbers]");
    readout.textContent = found ? found.dataset.numbers : hint;
  };
  for (const kind of ["pointerover", "focusin", "click"]) figure.addEventListener(kind, show);
}

// An answer's text goes to the clipboard; where the browser forbids that, it is selected.
for (const answer of document.querySelectorAll(".answer")) {
  const texts = [...answer.querySelectorAll(".said, pre")];
  if (!texts.length) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy: ${answer.querySelector("h4").textContent}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(texts.map((text) => text.textContent).join("\n"));
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.setStartBefore(texts[0]);
      range.setEndAfter(texts.at(-1));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
    }
  });
  answer.prepend(button);
}

// A figure moves into the dialog and back: a copy would give every id of its drawing twice.
const dialog = document.createElement("dialog");
dialog.className = "large";
const close = document.createElement("button");
close.type = "button";
close.textContent = "Close";
close.addEventListener("click", () => dialog.close());
dialog.append(close);
document.body.append(dialog);
for (const figure of document.querySelectorAll("figure:not(.map)")) {
  const drawing = figure.querySelector("svg");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  button.textContent = "Full size";
  button.setAttribute("aria-describedby", drawing.getAttribute("aria-labelledby"));
  button.addEventListener("click", () => {
    figure.style.minHeight = `${figure.offsetHeight}px`;
    dialog.append(drawing);
    dialog.setAttribute("aria-labelledby", drawing.getAttribute("aria-labelledby"));
    dialog.addEventListener("close", () => {
      figure.prepend(drawing);
      figure.style.minHeight = "";
    }, { once: true });
    dialog.showModal();
  });
  figure.append(button);
}
