import { expect, test } from "vitest";
import { memoryStore } from "../shared/stores.ts";
import { land } from "./landing.ts";
import { KEEP_MS, makeMemory, SESSIONS_KEPT_MAX } from "./memory.ts";

const origin = { veId: "ve_a", link: "l", returnUrl: "" };

function parts() {
  const clock = { ms: 1_000 };
  const local = memoryStore();
  const tab = memoryStore();
  const memory = makeMemory(local, tab, () => clock.ms);
  const replaced: string[] = [];
  const visit = (text: string) => {
    const url = new URL(text, "https://pay.example");
    const history = {
      replaceState: (_data: unknown, _title: string, to?: string | URL | null) => replaced.push(String(to)),
    };
    return land({ location: url, history: history as unknown as History }, memory);
  };
  return { clock, local, tab, memory, visit, replaced };
}

test("a link opens one session in a tab, until it is forgotten", () => {
  const { memory, visit, replaced } = parts();
  expect(visit("/checkout?ve_id=ve_a&link=l")).toEqual({ kind: "open", origin, attempt: 0 });
  memory.setOpened(origin, { id: "cs_1", secret: "tbc_1" });
  expect(visit("/checkout?ve_id=ve_a&link=l")).toEqual({
    kind: "session",
    id: "cs_1",
    secret: "tbc_1",
    wechatCode: null,
  });
  expect(replaced).toEqual(["/checkout/cs_1"]);
  expect(visit("/checkout?ve_id=ve_a&link=other")).toMatchObject({ kind: "open" });
  memory.forgetOpened(origin);
  expect(visit("/checkout?ve_id=ve_a&link=l")).toMatchObject({ kind: "open" });
});

test("secret and code leave the address at once; the secret is there when the payer comes back", () => {
  const { visit, replaced } = parts();
  expect(visit("/checkout/cs_1")).toEqual({ kind: "closed" });
  expect(replaced).toEqual([]);
  expect(visit("/checkout/cs_1#tbc_1")).toMatchObject({ kind: "session", secret: "tbc_1" });
  expect(visit("/checkout/cs_1?code=wx&state=s")).toMatchObject({ secret: "tbc_1", wechatCode: "wx" });
  expect(replaced).toEqual(["/checkout/cs_1", "/checkout/cs_1"]);
  expect(visit("/elsewhere")).toEqual({ kind: "nothing" });
});

test("a newer secret changes nothing else, and what is not ours is ignored", () => {
  const { local, memory, visit } = parts();
  memory.keep("cs_1", { secret: "tbc_1", origin, awaiting: true });
  visit("/checkout/cs_1#tbc_2");
  expect(memory.kept("cs_1")).toMatchObject({ secret: "tbc_2", origin, awaiting: true });
  for (const text of ["", "null", "{}", '{"secret":1}']) {
    local.set("tokenbill.checkout.session:cs_2", text);
    expect(memory.kept("cs_2")).toBeNull();
  }
});

test("what is old goes, and of too many the oldest", () => {
  const { clock, local, memory } = parts();
  local.set("other", "stays");
  for (let i = 0; i < SESSIONS_KEPT_MAX + 5; i++) {
    clock.ms++;
    memory.keep(`cs_${i}`, { secret: "tbc" });
  }
  memory.clean();
  expect(local.keys().length).toBe(SESSIONS_KEPT_MAX + 1);
  expect(memory.kept("cs_4")).toBeNull();
  expect(memory.kept("cs_5")).not.toBeNull();
  clock.ms += KEEP_MS;
  expect(memory.kept("cs_24")).toBeNull();
  memory.clean();
  expect(local.keys()).toEqual(["other"]);
});
