// What a page cannot be without a script in a tab of Airflow's.

// Airflow keeps in the browser whether its pages are light or dark. The pages in its tabs are as the others.
const follow = () => {
  const chosen = localStorage.getItem("theme");
  document.documentElement.style.colorScheme = chosen === "light" || chosen === "dark" ? chosen : "";
};
follow();
addEventListener("storage", follow);

// The frame of a tab lets no link lead out of it. So the page around it, which is Airflow's, is given one to follow.
addEventListener("click", (event) => {
  const link = event.target.closest("a[target=_top]");
  if (!link || parent === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const way = parent.document.createElement("a");
  way.href = link.href;
  way.click();
});
