/** PURE. Responses clients at an upstream that has the Responses API: bytes pass through, but for ids of what is stored. */

import { mayHold } from "../../body.ts";
import { pinId, type RenameId, renameInAnswer, renamePrevious } from "../../pins.ts";
import type { RoutePm } from "../../route_types.ts";
import { SseSplitter } from "../../sse.ts";
import type { Dialect } from "../dialects.ts";
import type { Asked, Bridge } from "../format.ts";
import { nativeBody, nativeCall } from "../openai.ts";
import { dropSealed } from "./body.ts";
import { ResponsesStream } from "./native.ts";
import { readResponse, readResponseTail } from "./native_answer.ts";

/** The beginning of the key, short enough to be looked for fast (see `tokenizer/media.ts`). */
const ENCRYPTED_START = '"encry';

/** The last event holds the whole response, images included. */
const EVENT_BYTES_MAX = 64 * 1024 * 1024;

/** Ids of this target as the VE's clients know them; null where the VE has no secret. */
export function renameFor(secret: string, pm: RoutePm): RenameId | null {
  return secret === "" ? null : (id) => pinId(secret, id, pm.id);
}

/** What the client sent, with the upstream's own id of the response that it continues. */
function bodyFor(dialect: Dialect, pm: RoutePm, asked: Asked): Buffer {
  const body = nativeBody(dialect, pm, asked);
  // What the request names was looked for when it was admitted; here only reasoning is of interest.
  const plain = mayHold(body, ENCRYPTED_START) ? dropSealed(body) : body;
  const { previousId } = asked;
  return previousId === null ? plain : renamePrevious(plain, () => previousId);
}

export function responsesBridge(dialect: Dialect, error: Bridge["error"]): Bridge {
  return {
    translated: false,
    whole: true,
    request: (pm, asked, forwarded) => nativeCall(pm, asked, bodyFor(dialect, pm, asked), forwarded),
    error,
    readAnswer(body, asked, pm) {
      const reading = readResponse(body);
      const rename = renameFor(asked.pinSecret, pm);
      return rename === null ? reading : Object.assign(reading, { bytes: renameInAnswer(body, rename) });
    },
    readTail: readResponseTail,
    streamReader: (asked, pm) => new ResponsesStream(renameFor(asked.pinSecret, pm)),
    splitter: () => new SseSplitter(EVENT_BYTES_MAX),
  };
}
