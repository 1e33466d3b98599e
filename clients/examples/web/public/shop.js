// The shop's page. It knows no token of TokenBill: its own server does.

const remaining = document.getElementById("remaining");
const button = document.getElementById("top-up");
const problem = document.getElementById("problem");

/** @param {string} path @param {RequestInit} [init] */
async function call(path, init) {
  const response = await fetch(path, init);
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return response.json();
}

call("/api/wallet").then(
  ({ creditRemaining }) => (remaining.textContent = creditRemaining),
  () => (problem.textContent = "The wallet cannot be read at the moment."),
);

button.addEventListener("click", async () => {
  button.disabled = true;
  try {
    const { url } = await call("/api/top-up", { method: "POST" });
    window.location.assign(url);
  } catch {
    problem.textContent = "That did not work. Please try again.";
    button.disabled = false;
  }
});
