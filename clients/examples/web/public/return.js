// Where the payer comes back to. That they are here says nothing: the server asks TokenBill.

const result = document.getElementById("result");
const order = new URLSearchParams(window.location.search).get("order") ?? "";
const WAIT_MS = 1_000;

/** @type {Record<string, string>} */
const TEXTS = {
  OPEN: "You have not paid yet.",
  FAILED: "The payment was declined. You were not charged.",
  EXPIRED: "Nobody paid in time.",
  CANCELED: "You have cancelled the top-up.",
  PAID: "Your money has arrived. The Credits follow.",
};

async function show() {
  const response = await fetch(`/api/orders/${encodeURIComponent(order)}`);
  if (response.status === 404) return (result.textContent = "There is no such order.");
  const { state, creditsGranted } = await response.json();
  if (state === "FULFILLED") return (result.textContent = `Thank you! ${creditsGranted} Credits were added.`);
  result.textContent = TEXTS[state] ?? "One moment…";
  if (state === "PENDING" || state === "PAID") setTimeout(again, WAIT_MS);
}

function again() {
  show().catch(() => setTimeout(again, WAIT_MS));
}

again();
