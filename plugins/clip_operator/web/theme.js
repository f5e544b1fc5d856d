// Airflow keeps in the browser whether its pages are light or dark. The pages in its tabs are as the others.
const follow = () => {
  const chosen = localStorage.getItem("theme");
  document.documentElement.style.colorScheme = chosen === "light" || chosen === "dark" ? chosen : "";
};
follow();
addEventListener("storage", follow);
