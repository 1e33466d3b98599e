/** PURE. Bridges of endpoints with JSON answers that are never streamed, at upstreams that speak another format. */

import { NO_TEXT } from "../tokenizer/tokens.ts";
import type { UnitQuantity } from "../../core/meters.ts";
import { SseSplitter } from "../sse.ts";
import { bodyOf, contextOf, outbound, targetOf } from "./call.ts";
import { type AnswerHeaders, type AnswerReading, type Bridge, type StreamReader } from "./format.ts";
import { type Json, type JsonAnswer, type JsonUpstream, RefusedFieldError } from "./hub.ts";
import { imageQuantity } from "./images.ts";
import { countOf, listOf, objectOf, parseObject, textOf } from "./json.ts";

/** The calls came back as one answer: see `fan_out.ts`. */
function answersOf(body: Buffer, headers: AnswerHeaders, several: boolean): JsonAnswer[] | null {
  if (!several) {
    const json = parseObject(body);
    return json === null ? null : [{ body: json, headers }];
  }
  try {
    const all = listOf(JSON.parse(body.toString("utf8")));
    return all.map((each) => {
      const { headers: own, body: json } = objectOf(each);
      return { body: objectOf(json), headers: objectOf(own) as AnswerHeaders };
    });
  } catch {
    return null;
  }
}

/** Images by number, with the size and quality that were asked for. */
function imagesOf(answer: Json, request: Json): readonly UnitQuantity[] {
  const read = {
    images: listOf(answer["data"]).length,
    size: textOf(answer["size"]),
    quality: textOf(answer["quality"]),
  };
  return [imageQuantity(read, { size: textOf(request["size"]), quality: textOf(request["quality"]) })];
}

/** @param images its answers are images, which are counted */
export function jsonBridge(upstream: JsonUpstream, images: boolean): Bridge {
  return {
    translated: true,
    whole: true,
    request(pm, asked) {
      const target = targetOf(pm, false);
      const [first, ...others] = upstream.requests(bodyOf(asked), target);
      if (first === undefined) throw new RefusedFieldError("invalid_value", "input", "There is nothing to do.");
      const call = outbound(pm, first, "application/json");
      return others.length === 0
        ? call
        : { ...call, others: others.map((other) => outbound(pm, other, "application/json")) };
    },
    error: (status, headers, body) => upstream.error(status, headers, body),
    readAnswer(body, asked, pm, headers): AnswerReading {
      const request = bodyOf(asked);
      const target = targetOf(pm, false);
      const answers = answersOf(body, headers, body[0] === ARRAY);
      const answer = answers === null ? null : upstream.answer(answers, request, target, contextOf(asked));
      return {
        valid: answer !== null,
        usage: answer === null ? null : usageOf(answer),
        counted: images && answer !== null ? imagesOf(answer, request) : [],
        bytes: Buffer.from(JSON.stringify(answer)),
        textBytes: () => 0,
        hasContent: () => true,
        sample: () => NO_TEXT,
      };
    },
    readTail: () => null,
    streamReader(): StreamReader {
      throw new Error("this endpoint is not streamed");
    },
    splitter: () => new SseSplitter(),
  };
}

const ARRAY = 0x5b;

/** Models that make images report no tokens. */
function usageOf(answer: Json): Json | null {
  const usage = objectOf(answer["usage"]);
  return countOf(usage["prompt_tokens"]) === undefined && countOf(usage["input_tokens"]) === undefined ? null : usage;
}
