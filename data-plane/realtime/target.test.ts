import { expect, test } from "vitest";
import { NO_ACCOUNT } from "../route_account.ts";
import type { RoutePm, RouteProvider } from "../route_types.ts";
import { KEY_AUTH, realtimeGroup, realtimeRequest } from "./target.ts";

function pmOf(format: number, basePath: string, baseQuery = "", apiVersion = "", id = "pm"): RoutePm {
  const provider = {
    origin: "https://up.example",
    format,
    basePath,
    baseQuery,
    apiKey: "secret",
    headers: ["x-own", "1"],
    account: { ...NO_ACCOUNT, apiVersion },
  } as Partial<RouteProvider> as RouteProvider;
  return { id, provider, kinds: ~0, upstreamName: "gpt realtime/1" } as Partial<RoutePm> as RoutePm;
}

const MODEL = "gpt+realtime%2F1";

test.each([
  [1, "/v1", "", "", `/v1/realtime?model=${MODEL}`],
  [1, "", "?team=a", "", `/realtime?team=a&model=${MODEL}`],
  [2, "", "", "", `/openai/v1/realtime?model=${MODEL}`],
  [2, "/openai/v1", "", "preview", `/openai/v1/realtime?model=${MODEL}`],
  [2, "/openai", "", "2025-04-01-preview", `/openai/realtime?api-version=2025-04-01-preview&deployment=${MODEL}`],
  [2, "/front", "?api-version=2024-10-21", "", `/front/openai/realtime?api-version=2024-10-21&deployment=${MODEL}`],
  [2, "/openai/deployments/my%20rt", "", "2024-10-21", "/openai/realtime?api-version=2024-10-21&deployment=my+rt"],
  [2, "/front/openai/deployments/rt/chat", "", "", "/front/openai/v1/realtime?model=rt"],
])("format %i at %s%s, version %s", (format, basePath, baseQuery, version, path) => {
  const request = realtimeRequest(pmOf(format, basePath, baseQuery, version), "realtime=v1");
  expect(request).toMatchObject({ origin: "https://up.example", path, method: "GET", body: null });
  expect(request.headers).toEqual(["user-agent", "tokenbill", "x-own", "1", "openai-beta", "realtime=v1"]);
});

test("keys go where the format wants them", () => {
  const headersOf = (format: number): readonly string[] => {
    const pm = pmOf(format, "/v1");
    const ready = KEY_AUTH.authorize(pm.provider, realtimeRequest(pm, ""), () => undefined);
    return (ready as { headers: readonly string[] }).headers.slice(-2);
  };
  expect(headersOf(1)).toEqual(["authorization", "Bearer secret"]);
  expect(headersOf(2)).toEqual(["api-key", "secret"]);
});

test("targets of other formats are left out, and the weights of the rest stay", () => {
  const pms = [pmOf(1, "", "", "", "a"), pmOf(3, "", "", "", "b"), pmOf(2, "", "", "", "c"), pmOf(4, "", "", "", "d")];
  const only = { tier: 1, pms: [pms[3]!], cumulative: [5] };
  const group = { key: "k", tiers: [{ tier: 0, pms: pms.slice(0, 3), cumulative: [2, 9, 12] }, only], pms, refs: 1 };
  const { tiers, pms: left } = realtimeGroup(group);
  expect(tiers).toEqual([{ tier: 0, pms: [pms[0], pms[2]], cumulative: [2, 5] }]);
  expect(left.map(({ id }) => id)).toEqual(["a", "c"]);
  const all = { ...group, pms: [pms[0]!] };
  expect(realtimeGroup(all)).toBe(all);
});
