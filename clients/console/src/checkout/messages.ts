/** PURE: the checkout page's messages in all languages. */

import type { Tables } from "../shared/i18n/language.ts";
import { type CheckoutMessages, en } from "./messages_en.ts";
import { zh } from "./messages_zh.ts";

export const MESSAGES: Tables<CheckoutMessages> = { en, zh };
