// Filters the cards of the catalogue page. The state lives in the address, so that a selection can be linked to.
(() => {
  const form = document.querySelector("form.catalogue-filter");
  if (!form) return;
  const cards = [...document.querySelectorAll(".system")].map((element) => ({
    element,
    classes: element.classList,
    section: element.closest("section"),
    text: element.textContent.toLowerCase(),
  }));
  const sections = new Set(cards.map((card) => card.section));
  const output = form.querySelector("output");

  const matches = (card, state) =>
    state.q.every((word) => card.text.includes(word)) &&
    ["family", "part"].every((name) => !state[name] || card.classes.contains(`${name}-${state[name]}`)) &&
    (!state.needs || card.classes.contains(`needs-${state.needs.replace(/^-/, "")}`) !== state.needs.startsWith("-")) &&
    (!state.implemented || card.classes.contains("implemented"));

  const apply = () => {
    const data = Object.fromEntries(new FormData(form));
    const state = { ...data, q: data.q.toLowerCase().split(/\s+/).filter(Boolean) };
    for (const card of cards) card.element.hidden = !matches(card, state);
    for (const section of sections) {
      section.hidden = cards.every((card) => card.section !== section || card.element.hidden);
    }
    const shown = cards.filter((card) => !card.element.hidden).length;
    output.textContent = shown ? `${shown} of ${cards.length} systems` : "No system fits; clear a filter.";
    const query = new URLSearchParams(Object.entries(data).filter(([, value]) => value)).toString();
    history.replaceState(null, "", location.pathname + (query && `?${query}`) + location.hash);
  };

  const restore = () => {
    for (const [name, value] of new URLSearchParams(location.search)) {
      const field = form.elements.namedItem(name);
      if (field?.type === "checkbox") field.checked = true;
      else if (field) field.value = value;
    }
  };

  // A link to a card or a family that the filter hides shows everything again.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.closest("[hidden]")) {
      form.reset();
      apply();
      target.scrollIntoView();
    }
  };

  restore();
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  window.addEventListener("hashchange", reveal);
  if (location.search) {
    apply();
    reveal();
  } else {
    output.textContent = `${cards.length} systems`;
  }
})();
