"use strict";
// A picture that stands on the page several times is in its text once.
for (const picture of document.querySelectorAll("img[data-same]")) {
  picture.src = document.querySelector(`[data-picture="${picture.dataset.same}"]`).src;
}

// An article fits a control that is empty, that is its value, that contains it, or whose end it does not pass.
function fits(article, control) {
  const name = control.dataset.by;
  if (control.value === "") return true;
  if (name === "text") return article.textContent.toLowerCase().includes(control.value.toLowerCase());
  const value = article.dataset[name];
  if (control.tagName === "SELECT") return value === control.value.slice(1);
  if (value === "") return false; // it has no such number
  return control.dataset.end === "least" ? Number(value) >= control.valueAsNumber : Number(value) <= control.valueAsNumber;
}

for (const list of document.querySelectorAll(".filtered")) {
  const bar = list.querySelector(".filters");
  const controls = [...bar.querySelectorAll("[data-by]")];
  const articles = [...list.querySelectorAll("article")];
  const groups = [...list.querySelectorAll(".group")];
  const count = bar.querySelector("output");
  const show = () => {
    let shown = 0;
    for (const article of articles) {
      article.hidden = !controls.every((control) => fits(article, control));
      shown += !article.hidden;
    }
    for (const group of groups) group.hidden = !group.querySelector("article:not([hidden])");
    const noun = count.dataset.noun;
    count.textContent = shown === articles.length ? `${shown} ${noun}` : `${shown} of ${articles.length} ${noun}`;
  };
  bar.hidden = false;
  bar.addEventListener("input", show);
  bar.querySelector("button").addEventListener("click", () => {
    for (const control of controls) control.value = "";
    show();
  });
  show(); // a browser that goes back fills the controls as they were
}
