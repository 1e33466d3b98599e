/** Requests and answers of a wanted size. No character in them needs quoting for nginx or Lua. */

const WORDS = "The quick brown fox jumps over the lazy dog while nobody pays for the tokens ";

function filler(bytes: number): string {
  return WORDS.repeat(Math.ceil(Math.max(0, bytes) / WORDS.length)).slice(0, Math.max(0, bytes));
}

/** A chat completion of about `kb` KB, with usage. */
export function chatAnswer(kb: number): string {
  const make = (content: string): string =>
    JSON.stringify({
      id: "chatcmpl-bench",
      object: "chat.completion",
      created: 1_764_000_000,
      model: "bench-upstream",
      choices: [
        { index: 0, message: { role: "assistant", content, refusal: null }, logprobs: null, finish_reason: "stop" },
      ],
      usage: {
        prompt_tokens: 200,
        completion_tokens: 150,
        total_tokens: 350,
        prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 },
      },
      service_tier: "default",
    });
  return make(filler(kb * 1024 - make("").length));
}

/** A chat request of about `kb` KB. `max_tokens` keeps what is reserved small. */
export function chatRequest(kb: number, model: string, stream = false): string {
  const make = (content: string): string =>
    JSON.stringify({
      model,
      messages: [
        { role: "system", content: "You are a terse assistant." },
        { role: "user", content },
      ],
      max_tokens: 256,
      temperature: 0.7,
      ...(stream ? { stream: true } : {}),
    });
  return make(filler(kb * 1024 - make("").length));
}
