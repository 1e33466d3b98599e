/** PURE. The Magic Command's answer in the format of `/v1/responses`. Facts: reference/UPSTREAM-FORMATS.md A4. */

const NO_USAGE = {
  input_tokens: 0,
  input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
  output_tokens: 0,
  output_tokens_details: { reasoning_tokens: 0 },
  total_tokens: 0,
};

type Fields = Readonly<Record<string, unknown>>;

function textPart(text: string): Fields {
  return { type: "output_text", text, annotations: [], logprobs: [] };
}

function messageItem(id: string, status: string, content: readonly Fields[]): Fields {
  return { id: `msg_${id}`, type: "message", role: "assistant", status, content };
}

function response(id: string, createdS: number, model: string, item: Fields | null): Fields {
  return {
    id: `resp_${id}`,
    object: "response",
    created_at: createdS,
    completed_at: item === null ? null : createdS,
    status: item === null ? "in_progress" : "completed",
    background: false,
    error: null,
    incomplete_details: null,
    instructions: null,
    max_output_tokens: null,
    metadata: {},
    model,
    output: item === null ? [] : [item],
    parallel_tool_calls: true,
    previous_response_id: null,
    // Nothing was kept that could be asked for again.
    store: false,
    temperature: null,
    text: { format: { type: "text" } },
    tool_choice: "auto",
    tools: [],
    top_p: null,
    truncation: "disabled",
    usage: item === null ? null : NO_USAGE,
  };
}

/** The text as a response. @param id without a prefix */
export function responseJson(id: string, createdS: number, model: string, text: string): Buffer {
  const item = messageItem(id, "completed", [textPart(text)]);
  return Buffer.from(JSON.stringify(response(id, createdS, model, item)));
}

/** The same as a whole stream, which ends with `response.completed`. */
export function responseStream(id: string, createdS: number, model: string, text: string): Buffer {
  let number = 0;
  const frame = (type: string, fields: Fields): string =>
    `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: number++, ...fields })}\n\n`;
  const place = { item_id: `msg_${id}`, output_index: 0, content_index: 0 };
  const begun = response(id, createdS, model, null);
  const item = messageItem(id, "completed", [textPart(text)]);
  return Buffer.from(
    frame("response.created", { response: begun }) +
      frame("response.in_progress", { response: begun }) +
      frame("response.output_item.added", { output_index: 0, item: messageItem(id, "in_progress", []) }) +
      frame("response.content_part.added", { ...place, part: textPart("") }) +
      frame("response.output_text.delta", { ...place, delta: text, logprobs: [] }) +
      frame("response.output_text.done", { ...place, text, logprobs: [] }) +
      frame("response.content_part.done", { ...place, part: textPart(text) }) +
      frame("response.output_item.done", { output_index: 0, item }) +
      frame("response.completed", { response: response(id, createdS, model, item) }),
  );
}
