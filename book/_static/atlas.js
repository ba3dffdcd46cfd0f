// Tables that sort and filter, cards that show what a reference points to, and buttons that copy a citation.
(() => {
  "use strict";

  const value = (row, column) => row.cells[column].textContent.trim();
  const number = (text) => Number.parseFloat(text.replace("−", "-"));

  function compare(a, b) {
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    return Number.isNaN(x) ? a.localeCompare(b) : x - y;
  }

  function sort(head, headings) {
    const body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    headings.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].sort((a, b) => compare(value(a, head.cellIndex), value(b, head.cellIndex)));
    body.append(...(up ? rows : rows.reverse()));
  }

  function filter(table) {
    const input = document.createElement("input");
    input.type = "search";
    input.className = "table-filter";
    input.placeholder = "Filter the rows";
    input.setAttribute("aria-label", "Filter the rows of the table below");
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/);
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
    (table.closest(".pst-scrollable-table-container") ?? table).before(input);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.querySelectorAll("thead th")];
    for (const head of headings) {
      head.setAttribute("aria-sort", "none");
      head.tabIndex = 0;
      head.title = "Sort by this column";
      head.addEventListener("click", () => sort(head, headings));
      head.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        sort(head, headings);
      });
    }
    if (table.tBodies[0].rows.length > 8) filter(table);
  }

  for (const pre of document.querySelectorAll("details.cite pre")) {
    const text = pre.textContent;
    const button = document.createElement("button");
    button.className = "copy";
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    pre.append(button);
  }

  // Hover cards: the target of a link to a citation, an equation, a figure, a table or a proof of this site.
  const SHOWN = /^(ref-|equation-|eq-|fig-|table-|thm-|lem-|def-|prop-|alg-|prf-)/;
  const pages = new Map();
  let card = null;
  let timer = 0;

  function page(url) {
    const address = url.origin + url.pathname;
    if (address === location.origin + location.pathname) return Promise.resolve(document);
    if (!pages.has(address)) {
      pages.set(address, fetch(address).then(async (answer) => {
        const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const image of parsed.querySelectorAll("img[src]")) image.src = new URL(image.getAttribute("src"), address).href;
        return parsed;
      }));
    }
    return pages.get(address);
  }

  function content(target) {
    if (target.id.startsWith("ref-")) return target.closest("div.citation") ?? target;
    if (target.matches("span.target, span:empty")) return target.nextElementSibling;
    return target.closest("div.math, figure, table, div.proof") ?? target;
  }

  function hide() {
    clearTimeout(timer);
    card?.remove();
    card = null;
  }

  async function show(link, url) {
    const found = (await page(url)).getElementById(decodeURIComponent(url.hash.slice(1)));
    const source = found && content(found);
    if (!source || !link.matches(":hover, :focus-visible")) return;
    hide();
    card = document.createElement("div");
    card.className = "hover-card bd-article";
    card.append(document.importNode(source, true));
    card.querySelectorAll("[id]").forEach((node) => node.removeAttribute("id"));
    card.addEventListener("mouseleave", hide);
    document.body.append(card);
    if (!card.querySelector("mjx-container")) await window.MathJax?.typesetPromise?.([card]);
    if (!card) return;
    const box = link.getBoundingClientRect();
    const left = Math.max(16, Math.min(box.left, document.documentElement.clientWidth - card.offsetWidth - 16));
    const below = box.bottom + card.offsetHeight + 8 < window.innerHeight;
    card.style.left = `${left + window.scrollX}px`;
    card.style.top = `${window.scrollY + (below ? box.bottom + 4 : box.top - card.offsetHeight - 4)}px`;
  }

  for (const link of document.querySelectorAll(".bd-article a[href*='#']")) {
    const url = new URL(link.href, location.href);
    if (url.origin !== location.origin || !SHOWN.test(url.hash.slice(1)) || link.matches(".headerlink")) continue;
    const open = () => {
      clearTimeout(timer);
      timer = setTimeout(() => show(link, url).catch(hide), 180);
    };
    link.addEventListener("mouseenter", open);
    link.addEventListener("focus", open);
    link.addEventListener("blur", hide);
    link.addEventListener("mouseleave", () => {
      clearTimeout(timer);
      timer = setTimeout(() => card?.matches(":hover") || hide(), 250);
    });
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
})();
