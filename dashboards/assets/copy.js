// Buttons that copy a command: those of dashboards/pages/inputs.py.
document.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-copy]");
  if (!button) return;
  window.getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
  if (!document.execCommand("copy")) return; // unlike navigator.clipboard it works without TLS too
  const label = button.firstChild;
  label.data = "copied";
  setTimeout(() => { label.data = "copy"; }, 1500);
});
