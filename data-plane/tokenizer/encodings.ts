/** PURE. Which encoding a model counts with, by the name that the upstream knows it under. */

export type EncodingName = "o200k_base" | "cl100k_base";

/**
 * What is not known counts with this: newer models of OpenAI use it, and those of others (Llama, Qwen, DeepSeek,
 * Mistral) come within a tenth or two of it. Nobody else publishes an encoding that could be shipped for all of them.
 */
export const DEFAULT_ENCODING: EncodingName = "o200k_base";

/** gpt-4 and gpt-3.5 (but not 4o, 4.1, 4.5), and the embedding models. */
const CL100K = /^(?:gpt-4(?:-|$)|gpt-3\.?5|text-embedding-(?:3|ada-002)|davinci-002|babbage-002)/;
/** `openai/gpt-4`, `ft:gpt-3.5-turbo:acme::id`. */
const PREFIX = /^(?:.*\/)?(?:ft:)?/;

export function encodingOf(model: string): EncodingName {
  return CL100K.test(model.toLowerCase().replace(PREFIX, "")) ? "cl100k_base" : DEFAULT_ENCODING;
}
