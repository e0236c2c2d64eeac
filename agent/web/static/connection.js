// On top of a page whose server does not answer, or whose session has ended: a notice. What the page says of the agent's state is struck out, its buttons are off.
"use strict";
const connection = (() => {
  const place = document.getElementById("gone");

  function lose(...notice) {
    place.replaceChildren(...notice);
    place.hidden = false;
    document.documentElement.classList.add("gone");
    for (const button of document.querySelectorAll("main button:not([data-range], [data-kind], [popovertargetaction], :disabled)")) {
      button.disabled = true;
      button.dataset.off = "";
    }
  }

  function restore() {
    place.hidden = true;
    document.documentElement.classList.remove("gone");
    for (const button of document.querySelectorAll("[data-off]")) {
      button.disabled = false;
      delete button.dataset.off;
    }
  }

  // The list of portfolios asks again by itself.
  const asks = document.querySelector("[hx-trigger^=every]");
  for (const name of asks ? ["htmx:sendError", "htmx:responseError", "htmx:timeout"] : []) {
    document.addEventListener(name, () => lose("The dashboard does not respond. Whether the agents run is not known here; figures and states are those read last."));
  }
  if (asks) document.addEventListener("htmx:afterRequest", event => { if (event.detail.successful) restore(); });
  return { lose, restore };
})();
