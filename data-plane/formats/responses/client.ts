/** PURE. A client of the Responses API whose upstream only has chat completions. See docs/formats/responses.md. */

import type { ChatClient } from "../hub.ts";
import { responseAnswer } from "./answer.ts";
import { chatRequest } from "./request.ts";
import { ResponsesSink } from "./sink.ts";

export const responsesClient: ChatClient = {
  request: chatRequest,
  answer: responseAnswer,
  sink: (context) => new ResponsesSink(context),
};
