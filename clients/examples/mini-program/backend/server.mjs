// `node server.mjs`: everybody is the same user here, of the VE in VE_ID. A real backend knows its users by their login.

import { createServer } from "node:http";
import { createTokenBill } from "@tokenbill/sdk";
import { createBackend } from "./backend.mjs";

const { TOKENBILL_URL = "http://127.0.0.1:8080", TOKENBILL_TOKEN, VE_ID, PORT = "3001" } = process.env;
if (!TOKENBILL_TOKEN || !VE_ID) throw new Error("TOKENBILL_TOKEN and VE_ID must be set; see README.md");

const tb = createTokenBill({ baseUrl: TOKENBILL_URL, apiToken: TOKENBILL_TOKEN });
const backend = createBackend({ tb, veOf: async () => VE_ID });
createServer(backend).listen(Number(PORT), () => console.log(`The backend listens on port ${PORT}.`));
