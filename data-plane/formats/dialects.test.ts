import { describe, expect, test } from "vitest";
import { ProviderDialect as Schema } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { allDialects, dialectOf, ProviderDialect, thinks } from "./dialects.ts";

describe("dialectOf", () => {
  test("numbers equal the schema", () => {
    const { UNSPECIFIED: _, ...named } = Schema as unknown as Record<string, number>;
    const schema = Object.fromEntries(Object.entries(named).filter(([name]) => Number.isNaN(Number(name))));
    expect({ ...ProviderDialect }).toEqual(schema);
    expect(allDialects().map((dialect) => dialect.number)).toEqual(Object.values(ProviderDialect));
  });

  test.each([
    ["https://api.openai.com", "OpenAI"],
    ["https://eu.api.openai.com", "OpenAI"],
    ["https://API.openai.com:443", "OpenAI"],
    ["https://evil-api.openai.com.example", "Generic"],
    ["https://notapi.openai.com", "Generic"],
    ["https://name.openai.azure.com", "OpenAI"],
    ["https://api.deepseek.com", "DeepSeek"],
    ["https://dashscope.aliyuncs.com", "Qwen (DashScope)"],
    ["https://dashscope-intl.aliyuncs.com", "Qwen (DashScope)"],
    ["https://cn-hongkong.dashscope.aliyuncs.com", "Qwen (DashScope)"],
    ["https://dashscope.aliyuncs.com.example", "Generic"],
    ["https://api.mistral.ai", "Mistral"],
    ["https://openrouter.ai", "OpenRouter"],
    ["https://api.groq.com", "Groq"],
    ["https://api.x.ai", "xAI"],
    ["https://eu-west-1.api.x.ai", "xAI"],
    ["https://api.together.xyz", "Together"],
    ["https://api.together.ai", "Together"],
    ["http://10.0.0.7:11434", "Ollama"],
    ["http://127.0.0.1:8000", "Generic"],
    ["http://[::1]:11434", "Generic"],
    ["https://llm.example", "Generic"],
  ])("%s is %s", (origin, title) => {
    expect(dialectOf(0, origin).title).toBe(title);
  });

  test("what is said counts more than the host, and what is not known is generic", () => {
    expect(dialectOf(ProviderDialect.VLLM, "https://api.openai.com").title).toBe("vLLM");
    expect(dialectOf(99, "https://api.openai.com").title).toBe("Generic");
  });

  test.each([
    ["o1", "always"],
    ["o3-mini-2025-01-31", "always"],
    ["openai/o4-mini", "always"],
    ["gpt-5", "always"],
    ["gpt-5-mini", "always"],
    ["gpt-5-chat-latest", "no"],
    ["gpt-5.1", "may"],
    ["gpt-5.1-chat-latest", "no"],
    ["gpt-6", "may"],
    ["gpt-4o", "no"],
    ["gpt-4.1", "no"],
    ["gpt-oss-120b", "no"],
    ["olmo", "no"],
    ["my-gpt-5", "no"],
  ])("%s thinks: %s", (model, kind) => {
    expect(thinks(model)).toBe(kind);
  });
});
