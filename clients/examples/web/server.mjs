// Run by `npm start`. The environment is described in README.md.

import { createServer } from "node:http";
import { createTokenBill } from "@tokenbill/sdk";
import { createShop } from "./shop.mjs";

/** @param {string} name @param {string} [otherwise] */
function env(name, otherwise) {
  const value = process.env[name] ?? otherwise;
  if (value === undefined || value === "") throw new Error(`${name} is not set; see README.md`);
  return value;
}

const port = Number(env("PORT", "3000"));
const publicUrl = env("SHOP_URL", `http://127.0.0.1:${port}`);
const shop = createShop({
  tb: createTokenBill({ baseUrl: env("TOKENBILL_URL", "http://127.0.0.1:8080"), apiToken: env("TOKENBILL_TOKEN") }),
  veId: env("VE_ID"),
  publicUrl,
  webhookSecret: env("WEBHOOK_SECRET"),
  now: Date.now,
});
createServer(shop).listen(port, () => console.log(`The shop is open: ${publicUrl}`));
