// Unpacks the data, hands one table per leaderboard to DataTables, and opens rows. Every text goes through `text`.
const MAIN = 4, text = (words) => String(words ?? "").replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const bytes = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
const unpacked = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
const source = URL.createObjectURL(new Blob([document.getElementById("library").textContent], { type: "text/javascript" }));
const [data, { default: DataTable }] = await Promise.all([unpacked, import(source)]);
URL.revokeObjectURL(source);
DataTable.ext.errMode = "throw";

// -- theme: the system's, until the button says otherwise
const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
try { chosen = localStorage.getItem("gauntlet-theme"); } catch { /* a page from a file may have no storage */ }
const paint = () => document.documentElement.classList.toggle("dark", chosen ? chosen === "dark" : system.matches);
system.addEventListener("change", paint);
document.getElementById("theme").addEventListener("click", () => {
  chosen = document.documentElement.classList.contains("dark") ? "light" : "dark";
  try { localStorage.setItem("gauntlet-theme", chosen); } catch { /* then only for now */ }
  paint();
});
paint();

// -- numbers
// Percent arrive in hundredths. No number lies half way between two shown ones: the page rounds as tables do.
const read = (metric, column, field, row) => {
  const value = column[field][row];
  return typeof value === "number" && metric.percent ? value / 100 : value;
};
const shown = (metric, value) => typeof value === "number" ? value.toFixed(metric.decimals) : value ?? "";
const unit = (metric) => (metric.percent ? " %" : "");
const spread = (metric, column, row) => {
  const half = read(metric, column, "half", row);
  return half === null || half === "∞" ? "" : ` <small>${typeof half === "number" ? `± ${shown(metric, half)}` : `(${text(half)})`}</small>`;
};

// -- cells of the table
function valueCell(metric, column, view) {
  return (row, type) => {
    const value = read(metric, column, "value", row);
    if (type !== "display") return typeof value === "string" ? (value === "∞" ? Infinity : -Infinity) : value ?? (type === "filter" ? "" : null);
    if (value === null) return "–";
    const words = shown(metric, value) + spread(metric, column, row);
    return metric.percent ? `<span class="bar" style="--v:${Math.min(Math.max(value, 0), 100).toFixed(1)}%">${words}</span>` : words;
  };
}
function dimensionCell(dimension, first) {
  return (row, type) => {
    const value = dimension.of[dimension.at[row]];
    if (type !== "display") return value;
    const words = text(value);
    return first ? `<button type="button" class="open-row" aria-expanded="false" title="${words}">${words}</button>` : words;
  };
}
function statusCell(view) {
  return (row, type) => {
    const words = view.status.of[view.status.at[row]];
    if (words === "ok") return type === "display" ? "" : "ok";
    const kind = words.split(":")[0];
    return type === "display" ? `<span class="pill ${kind === "skipped" || kind === "ok" ? kind : ""}" title="${text(words)}">${text(kind === "ok" ? "note" : kind)}</span>` : words;
  };
}

function columnsOf(board, view) {
  const rest = { data: null };
  const columns = view.dimensions.map((dimension, i) => ({
    ...rest, name: dimension.name, title: text(dimension.title), type: dimension.number ? "num" : "string",
    className: dimension.number ? "value" : "text", render: dimensionCell(dimension, i === 0),
  }));
  board.metrics.forEach((metric, i) => columns.push({
    ...rest, name: metric.name, type: "num", className: "value metric", visible: i < MAIN, render: valueCell(metric, view.metrics[metric.name], view),
    title: `<span title="${text(metric.about)}">${text(metric.title)}${unit(metric)}${{ higher: " ↑", lower: " ↓", "": "" }[metric.better]}</span>`,
  }));
  // on a phone the main figure comes right after the name, where it is seen without scrolling
  if (matchMedia("(max-width: 700px)").matches) columns.splice(1, 0, ...columns.splice(view.dimensions.length, 1));
  if (view.status.of.some((words) => words !== "ok")) columns.push({ ...rest, name: "status", title: "Status", className: "text", render: statusCell(view) });
  return columns;
}

// -- one leaderboard
function show(section, board, which) {
  const view = board.views[which], place = section.querySelector(".table"), table = document.createElement("table");
  table.className = "display compact";
  table.setAttribute("aria-labelledby", `${section.id}-title`);
  place.replaceChildren(table);
  const columns = columnsOf(board, view), main = columns.findIndex((column) => column.name === board.metrics[0]?.name);
  const better = board.metrics[0]?.better, api = new DataTable(table, {
    data: Array.from({ length: view.size }, (_, row) => row),
    columns, pageLength: 25, lengthMenu: [10, 25, 100, 500], autoWidth: false, orderMulti: true, deferRender: true,
    order: main < 0 || board.id === "attack" ? [] : [[main, better === "lower" ? "asc" : "desc"]],
    layout: { topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: "paging" },
    columnControl: [{ target: 0, content: ["order"] }, { target: 1, className: "filters", content: [{ extend: "search", placeholder: "filter" }] }],
    ordering: { indicators: false, handler: true },
    language: { search: "", searchPlaceholder: "Search all columns", lengthMenu: "_MENU_ rows", emptyTable: "Nothing was measured." },
  });
  const wrap = document.createElement("div");
  wrap.className = "scroll";
  wrap.tabIndex = 0;
  wrap.setAttribute("role", "region");
  wrap.setAttribute("aria-label", `${board.title}, table`);
  table.replaceWith(wrap);
  wrap.append(table);
  table.addEventListener("click", (event) => {
    const line = event.target.closest("tbody > tr");
    if (line && !line.classList.contains("inside") && !event.target.closest("tr.inside") && api.row(line).any()) toggle(api.row(line), line, board, view);
  });
  return api;
}

function toggle(row, line, board, view) {
  const open = !row.child.isShown();
  if (open) row.child(details(board, view, row.data()), "inside").show();
  else row.child.hide();
  line.classList.toggle("open", open);
  line.querySelector(".open-row")?.setAttribute("aria-expanded", String(open));
}

// -- what a row opens
function details(board, view, row) {
  const box = document.createElement("div"), key = view.key[row], run = data.runs[view.run.of[view.run.at[row]]];
  box.className = "details";
  const lines = board.metrics.filter((metric) => view.metrics[metric.name].value[row] !== null).map((metric) => {
    const column = view.metrics[metric.name], value = read(metric, column, "value", row);
    const ends = ["low", "high"].map((end) => shown(metric, read(metric, column, end, row))), range = ends.every(Boolean) ? ends.join(" – ") : "";
    return `<tr><th scope="row" title="${text(metric.about)}">${text(metric.title)}</th><td>${shown(metric, value)}${unit(metric)}</td><td>${range}</td><td>${column.n[row] ?? ""}</td></tr>`;
  });
  const drawings = data.plots[key] ?? [], seeds = view.seeds ? `mean over ${view.seeds[row]} seeds; plots and provenance are of the first` : null;
  box.innerHTML = `<div><h3>All metrics</h3><table><thead><tr><th>Metric</th><th>Value</th><th>95 % interval</th><th>n</th></tr></thead><tbody>${lines.join("")}</tbody></table><div class="plots">${drawings.join("")}</div></div>
    <div><h3>Provenance</h3>${list({ ...about(board, view, row), seeds, ...papers(view, row), ...(run ? { suite: `${run.suite}, run ${run.id}`, ...run.provenance } : {}) })}${parameters(view, row)}</div>`;
  return box;
}
const at = (coded, row) => coded.of[coded.at[row]];
function parameters(view, row) {
  const known = JSON.parse(at(view.params, row) || "{}");
  return Object.keys(known).length ? `<details class="parameters"><summary>Parameters</summary><pre>${text(JSON.stringify(known, null, 1).replace(/[{}",]/g, "").replace(/\n\s*(?=\n)/g, ""))}</pre></details>` : "";
}
function about(board, view, row) {
  const status = at(view.status, row);
  return {
    ...Object.fromEntries(Object.entries(view.facts).map(([name, coded]) => [name, at(coded, row)])),
    status: status === "ok" ? null : status, key: view.key[row],
    computed: [view.created[row].replace("T", " "), view.device.of[view.device.at[row]], view.seconds[row] === null ? "" : `${view.seconds[row]} s`].filter(Boolean).join(", "),
  };
}
function papers(view, row) {
  const parameters = JSON.parse(view.params.of[view.params.at[row]] || "{}");
  return Object.fromEntries(Object.entries(data.references).map(([kind, known]) => [`${kind} reference`, known[parameters[kind]?.name]]));
}
const list = (pairs) => `<dl>${Object.entries(pairs).filter(([, words]) => words).map(([name, words]) => `<dt>${text(name.replaceAll("_", " "))}</dt><dd>${text(words)}</dd>`).join("")}</dl>`;

// -- all leaderboards, one after the other so that the first is usable at once
const tables = [];
for (const section of document.querySelectorAll(".board")) {
  const board = data.boards[section.dataset.board], chosenOf = (name) => section.querySelector(`input[name="${section.id}-${name}"]:checked`)?.value;
  let api;
  const narrow = () => { const group = chosenOf("group") ?? ""; api.column("ood_group:name").search(group ? (words) => words === group : "").draw(); };
  const widen = () => { board.metrics.forEach((metric, i) => api.column(`${metric.name}:name`).visible(chosenOf("metrics") === "all" || i < MAIN, false)); };
  const draw = () => { api?.destroy(); api = show(section, board, chosenOf("view") ?? "each"); tables[section.dataset.board] = api; if (chosenOf("group")) narrow(); if (chosenOf("metrics") === "all") widen(); };
  section.querySelector(".more").hidden = board.metrics.length <= MAIN;
  section.addEventListener("change", (event) => ({ group: narrow, metrics: widen, view: draw })[event.target.name?.slice(section.id.length + 1)]?.());
  await new Promise((resolve) => setTimeout(resolve));
  draw();
}
addEventListener("beforeprint", () => tables.forEach((api) => api.page.len(500).draw()));
addEventListener("afterprint", () => tables.forEach((api) => api.page.len(25).draw()));
performance.mark("ready");
document.documentElement.dataset.ready = "true";
