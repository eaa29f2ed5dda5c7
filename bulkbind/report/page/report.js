"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  const theme = document.getElementById("theme");
  const names = ["auto", "light", "dark"];
  theme.addEventListener("click", () => {
    const next = names[(names.indexOf(theme.dataset.now) + 1) % names.length];
    theme.dataset.now = next;
    theme.textContent = `Theme: ${next}`;
    if (next === "auto") root.removeAttribute("data-theme");
    else root.dataset.theme = next;
  });

  const table = document.getElementById("rows");
  if (!table) return;
  const PAGE = matchMedia("(max-width: 640px)").matches ? 20 : 50;
  const body = table.tBodies[0];
  const all = Array.from(body.rows);
  const texts = new Map(all.map((row) => [row, row.textContent.toLowerCase()]));
  const find = document.getElementById("find");
  const pick = document.getElementById("pick");
  const said = document.getElementById("said");
  const back = document.getElementById("back");
  const forth = document.getElementById("forth");
  let order = all;
  let page = 0;

  const show = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = order.filter((row) =>
      (!pick.value || row.dataset.status === pick.value) &&
      words.every((word) => texts.get(row).includes(word)));
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(page, pages - 1);
    const seen = new Set(found.slice(page * PAGE, (page + 1) * PAGE));
    for (const row of all) row.hidden = !seen.has(row);
    const first = found.length ? page * PAGE + 1 : 0;
    said.textContent =
      `${first}–${page * PAGE + seen.size} of ${found.length} rows` +
      (found.length < all.length ? ` (${all.length} in all)` : "");
    back.disabled = page === 0;
    forth.disabled = page >= pages - 1;
  };

  const sorted = (column, isNumber, isDown) => {
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
    const compare = isNumber
      ? (a, b) => Number(key(a)) - Number(key(b))
      : (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true });
    const rows = [...all].sort(compare);
    return isDown ? rows.reverse() : rows;
  };

  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const isDown = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      order = sorted(head.cellIndex, head.classList.contains("num"), isDown);
      body.append(...order);
      page = 0;
      show();
    });
  }
  const again = () => { page = 0; show(); };
  find.addEventListener("input", again);
  pick.addEventListener("change", again);
  back.addEventListener("click", () => { page -= 1; show(); });
  forth.addEventListener("click", () => { page += 1; show(); });
  show();
})();
