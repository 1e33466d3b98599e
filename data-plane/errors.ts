/**
 * Every error that a client can see, as OpenAI's envelope `{error:{message,type,param,code}}` with OpenAI's types, codes
 * and statuses (reference/UPSTREAM-FORMATS.md A7), so that its SDKs raise their typed errors.
 */

import { RateKind, type RateRefusal } from "./rates/rates.ts";
import { formatDuration } from "./rates/request_rates.ts";

/** An answer that is an error. `headers` is flat. */
export interface ErrorAnswer {
  readonly status: number;
  /** The `code` of the envelope, "" for null: what the request log shows. */
  readonly code: string;
  readonly body: Buffer;
  readonly headers: readonly string[];
  /** What `body` says, for clients that read errors in another shape. */
  readonly fields: ErrorFields;
}

export interface ErrorFields {
  readonly message: string;
  readonly type: string;
  readonly param?: string | null;
  readonly code: string | null;
  readonly checkout_url?: string;
}

/** The SDKs retry 408, 409, 429 and 5xx whatever the body says; this header is looked at first. */
const NO_RETRY: readonly string[] = ["x-should-retry", "false"];

/** The longest `retry-after` that the SDKs obey, in seconds. */
export const RETRY_AFTER_S_MAX = 60;

export function envelope(fields: ErrorFields): Buffer {
  const { message, type, param = null, code, checkout_url } = fields;
  return Buffer.from(JSON.stringify({ error: { message, type, param, code, checkout_url } }));
}

function answer(status: number, fields: ErrorFields, headers: readonly string[] = []): ErrorAnswer {
  return { status, code: fields.code ?? "", body: envelope(fields), headers, fields };
}

function retryAfter(seconds: number): readonly string[] {
  return ["retry-after", String(Math.min(RETRY_AFTER_S_MAX, Math.max(1, Math.ceil(seconds))))];
}

const INVALID = "invalid_request_error";
const UNAVAILABLE = "service_unavailable_error";

/** The same words whatever was wrong: no key, unknown, of another VE, or of a disabled VE. */
export const INVALID_KEY: ErrorAnswer = answer(
  401,
  {
    message: "Incorrect API key provided. Check the access key and the address you call.",
    type: INVALID,
    code: "invalid_api_key",
  },
  NO_RETRY,
);

export function unknownPath(method: string, path: string): ErrorAnswer {
  return answer(
    404,
    { message: `Invalid URL (${method.slice(0, 16)} ${path.slice(0, 256)})`, type: INVALID, code: "unknown_url" },
    NO_RETRY,
  );
}

export function wrongMethod(method: string, path: string, allow: string): ErrorAnswer {
  return answer(
    405,
    {
      message: `Not allowed to ${method.slice(0, 16)} on ${path.slice(0, 256)}`,
      type: INVALID,
      code: "method_not_supported",
    },
    [...NO_RETRY, "allow", allow],
  );
}

export function modelNotFound(model: string): ErrorAnswer {
  return answer(
    404,
    {
      message: `The model \`${model.slice(0, 256)}\` does not exist or you do not have access to it.`,
      type: INVALID,
      param: "model",
      code: "model_not_found",
    },
    NO_RETRY,
  );
}

export function badRequest(message: string, param: string | null, code: string | null): ErrorAnswer {
  return answer(400, { message, type: INVALID, param, code }, NO_RETRY);
}

/** No target of the model serves such requests. */
export function unsupportedEndpoint(model: string, path: string): ErrorAnswer {
  const message = `The model \`${model.slice(0, 256)}\` cannot be used with \`${path}\`.`;
  return badRequest(message, "model", "unsupported_endpoint");
}

export function bodyTooLarge(bytesMax: number): ErrorAnswer {
  return answer(
    413,
    { message: `The request body is larger than ${bytesMax} bytes.`, type: INVALID, code: "request_too_large" },
    NO_RETRY,
  );
}

export const UNSUPPORTED_ENCODING: ErrorAnswer = answer(
  415,
  {
    message: "Request bodies must be sent without content-encoding.",
    type: INVALID,
    code: "unsupported_content_encoding",
  },
  NO_RETRY,
);

export const NO_FORM: ErrorAnswer = badRequest(
  "This endpoint takes multipart/form-data with a file.",
  "file",
  "invalid_content_type",
);

/** `insufficient_quota`: the wallet is empty. Never retried; carries the link where it can be filled. */
export function exhausted(status: number, checkoutUrl: string): ErrorAnswer {
  return answer(status, exhaustedFields(checkoutUrl), NO_RETRY);
}

export function exhaustedFields(checkoutUrl: string): ErrorFields {
  return {
    message: `Your Credit balance is insufficient. Please top up: ${checkoutUrl}`,
    type: "insufficient_quota",
    code: "insufficient_quota",
    checkout_url: checkoutUrl,
  };
}

/** The wallet cannot be asked at the moment. */
export const BUDGET_UNAVAILABLE: ErrorAnswer = answer(
  503,
  {
    message: "Your Credit balance cannot be checked at the moment. Please try again shortly.",
    type: UNAVAILABLE,
    code: "budget_unavailable",
  },
  retryAfter(2),
);

/** This node cannot write down what is owed. */
export const JOURNAL_UNAVAILABLE: ErrorAnswer = answer(
  503,
  {
    message: "This gateway node cannot take requests at the moment. Please try again shortly.",
    type: UNAVAILABLE,
    code: "service_unavailable",
  },
  retryAfter(2),
);

/** Bodies of other requests fill what this node gives to bodies. */
export const BODIES_UNAVAILABLE: ErrorAnswer = answer(
  503,
  {
    message: "This gateway node reads too many large requests at the moment. Please try again shortly.",
    type: UNAVAILABLE,
    code: "service_unavailable",
  },
  retryAfter(2),
);

export const UNKNOWN_EXPECTATION: ErrorAnswer = answer(
  417,
  { message: "The Expect header can only be 100-continue.", type: INVALID, code: "unsupported_expectation" },
  NO_RETRY,
);

export function noTarget(model: string): ErrorAnswer {
  return answer(
    503,
    {
      message: `No upstream for the model \`${model.slice(0, 256)}\` is available at the moment.`,
      type: UNAVAILABLE,
      code: "no_available_target",
    },
    retryAfter(2),
  );
}

export function rateLimited(model: string, retryAfterS: number): ErrorAnswer {
  return answer(
    429,
    {
      message: `All upstreams for the model \`${model.slice(0, 256)}\` are rate limited. Please try again later.`,
      type: "rate_limit_error",
      code: "rate_limit_exceeded",
    },
    retryAfter(retryAfterS),
  );
}

/** A rate limit of the key or the VE is reached, in OpenAI's words and types. */
export function rateLimitReached({ kind, limit, retryMs, tooLarge }: RateRefusal, tokens: number): ErrorAnswer {
  const inTokens = kind === RateKind.TOKENS;
  const what = kind === RateKind.CONCURRENT ? "concurrent requests" : `${inTokens ? "tokens" : "requests"} per minute`;
  const type = inTokens ? "tokens" : "requests";
  const code = "rate_limit_exceeded";
  if (tooLarge) {
    const message = `Request too large: limit of ${limit} ${what}, requested ${tokens}. The input must be reduced.`;
    return answer(429, { message, type, code }, NO_RETRY);
  }
  const message = `Rate limit reached on ${what}: limit ${limit}. Please try again in ${formatDuration(retryMs)}.`;
  return answer(429, { message, type, code }, [
    ...retryAfter(retryMs / 1000),
    "retry-after-ms",
    String(Math.min(RETRY_AFTER_S_MAX * 1000, Math.max(1, Math.ceil(retryMs)))),
  ]);
}

/** No target may use so many tokens in a minute as the input alone has. */
export function inputTooLarge(model: string): ErrorAnswer {
  const message = `Request too large for the model \`${model.slice(0, 256)}\`: the input must be reduced.`;
  return answer(429, { message, type: "tokens", code: "rate_limit_exceeded" }, NO_RETRY);
}

/**
 * Every target is at its Unit Limit or Credit Limit. `insufficient_quota` would send the client to a checkout that cannot
 * help. The SDKs retry a 429 after what `retry-after` says, which is of use only if a limit starts again by then: if not,
 * they are told to give up at once, rather than keep their caller waiting for the same answer.
 * @param retryAfterS when there is hope again; Infinity: that is not known
 */
export function modelLimitReached(model: string, retryAfterS: number): ErrorAnswer {
  return answer(
    429,
    {
      message: `The model \`${model.slice(0, 256)}\` has reached its usage limit.`,
      type: "rate_limit_error",
      code: "model_limit_reached",
    },
    [...(retryAfterS > RETRY_AFTER_S_MAX ? NO_RETRY : []), ...retryAfter(retryAfterS)],
  );
}

/** The limits of the targets cannot be asked about at the moment. */
export function limitUnavailable(model: string): ErrorAnswer {
  return answer(
    503,
    {
      message: `The usage limits of the model \`${model.slice(0, 256)}\` cannot be checked at the moment. Please try again shortly.`,
      type: UNAVAILABLE,
      code: "limit_unavailable",
    },
    retryAfter(2),
  );
}

export function tooManySessions(): ErrorAnswer {
  const message = "This gateway node has as many realtime sessions as it takes. Please try again shortly.";
  return answer(503, { message, type: UNAVAILABLE, code: "too_many_sessions" }, retryAfter(2));
}

/** The VE names no Provider for what is stored. */
export const PASSTHROUGH_NOT_SET: ErrorAnswer = answer(
  404,
  {
    message:
      "This Virtual Endpoint has no files, uploads, batches and vector stores: " +
      "the merchant must name a Provider for them in its `passthrough_provider_id`.",
    type: INVALID,
    code: "passthrough_not_set",
  },
  NO_RETRY,
);

export const PASSTHROUGH_NOT_SUPPORTED: ErrorAnswer = answer(
  404,
  {
    message:
      "The Provider that this Virtual Endpoint names in `passthrough_provider_id` has no files, uploads, batches and " +
      "vector stores: the merchant must name one of the format OPENAI or AZURE_OPENAI.",
    type: INVALID,
    code: "passthrough_not_supported",
  },
  NO_RETRY,
);

export const PASSTHROUGH_UNAVAILABLE: ErrorAnswer = answer(
  503,
  {
    message: "The upstream of files, uploads, batches and vector stores is not available at the moment.",
    type: UNAVAILABLE,
    code: "no_available_target",
  },
  retryAfter(2),
);

export const BATCHES_NOT_PRICED: ErrorAnswer = badRequest(
  "Batches cannot be created through this gateway: what they use is known only when they end, so that no wallet could " +
    "cover it. Send their requests one by one.",
  null,
  "batches_not_priced",
);

/** The one upstream that could answer has had enough requests for now. */
export function upstreamBusy(retryAfterS: number): ErrorAnswer {
  return answer(
    429,
    {
      message: "The upstream is rate limited. Please try again later.",
      type: "rate_limit_error",
      code: "rate_limit_exceeded",
    },
    retryAfter(retryAfterS),
  );
}

export function storedNotFound(id: string): ErrorAnswer {
  const message = `Response with id '${id.slice(0, 128)}' not found.`;
  return answer(404, { message, type: INVALID, param: null, code: "response_not_found" }, NO_RETRY);
}

/** What the one upstream that could answer said makes no sense. */
export function badAnswer(): ErrorAnswer {
  return answer(502, { message: "The upstream gave no usable answer.", type: "server_error", code: "bad_answer" });
}

export const SHUTTING_DOWN_ANSWER: ErrorAnswer = answer(
  503,
  { message: "The gateway node is shutting down.", type: UNAVAILABLE, code: "shutting_down" },
  retryAfter(2),
);

export const TOTAL_TIMEOUT: ErrorAnswer = answer(504, {
  message: "The request took too long.",
  type: "server_error",
  code: "timeout",
});

export const INTERNAL: ErrorAnswer = answer(500, {
  message: "The gateway failed to handle this request.",
  type: "server_error",
  code: "internal_error",
});

/** Errors after the answer began travel as a last frame. */
export const STREAM_CUT: ErrorFields = {
  message: "The upstream broke off the answer.",
  type: "server_error",
  code: "upstream_cut",
};
export const STREAM_TIMEOUT: ErrorFields = {
  message: "The answer took too long.",
  type: "server_error",
  code: "timeout",
};
export const SHUTTING_DOWN: ErrorFields = {
  message: "The gateway node is shutting down.",
  type: "server_error",
  code: "shutting_down",
};

/** Errors of the HTTP parser, before there is a request. */
export const MALFORMED_HTTP: ErrorAnswer = badRequest("This is not a valid HTTP request.", null, "bad_request");
export const HEADERS_TOO_LARGE: ErrorAnswer = answer(431, {
  message: "The request headers are too large.",
  type: INVALID,
  code: "headers_too_large",
});
export const REQUEST_TIMEOUT: ErrorAnswer = answer(408, {
  message: "The request did not arrive in time.",
  type: INVALID,
  code: "request_timeout",
});

/** A 4xx of an upstream that is the client's own fault. */
export function upstreamRefusal(status: number, fields: ErrorFields): ErrorAnswer {
  return answer(status, fields, NO_RETRY);
}
