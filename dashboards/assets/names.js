// The handle of a slider, to which dash gives no name, is called as the group that it stands in: pages/inputs.py.
document.addEventListener("focusin", ({ target }) => {
  if (target.role === "slider") target.ariaLabel ??= target.closest("[role=group]")?.ariaLabel ?? null;
});
