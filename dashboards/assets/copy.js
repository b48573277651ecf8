// Buttons that copy a command, each before the place that says what came of it: those of dashboards/pages/inputs.py.
document.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-copy]");
  if (!button) return;
  window.getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
  const done = document.execCommand("copy"); // unlike navigator.clipboard it works without TLS too
  const said = button.nextElementSibling;
  said.textContent = done ? "copied" : "select and copy by hand";
  clearTimeout(said.until); // else an earlier one would take this down
  said.until = setTimeout(() => { said.textContent = ""; }, done ? 1500 : 6000);
});
