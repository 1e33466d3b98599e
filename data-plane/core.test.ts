import { expect, test } from "vitest";
import { Core, type Live } from "./core.ts";
import type { PipelineDeps } from "./deps.ts";

class Request implements Live {
  liveAt = -1;
  aborts = 0;
  private readonly onAbort: (request: Request) => void;
  constructor(onAbort: (request: Request) => void = () => undefined) {
    this.onAbort = onAbort;
  }
  onProgressTick(): void {}
  abort(): void {
    this.aborts++;
    this.onAbort(this);
  }
}

function makeCore(): Core {
  return new Core({ now: () => 0, settings: {} } as unknown as PipelineDeps);
}

test("requests end in any order, each once, and the last one makes it idle", async () => {
  const core = makeCore();
  const requests = Array.from({ length: 5 }, () => new Request());
  for (const request of requests) core.opened(request);
  let idle = false;
  const waiting = core.idle().then(() => (idle = true));
  for (const at of [1, 4, 0, 0, 3]) core.closed(requests[at]!);
  expect(core.liveCount).toBe(1);
  core.abortAll();
  expect(requests.map((request) => request.aborts)).toEqual([0, 0, 1, 0, 0]);
  await Promise.resolve();
  expect(idle).toBe(false);
  core.closed(requests[2]!);
  await waiting;
  expect(core.liveCount).toBe(0);
  core.close();
});

test("who ends because another one was ended is not ended again", () => {
  const core = makeCore();
  const other = new Request();
  const first = new Request((self) => {
    core.closed(self);
    core.closed(other);
  });
  for (const request of [first, other]) core.opened(request);
  core.abortAll();
  expect([first.aborts, other.aborts, core.liveCount]).toEqual([1, 0, 0]);
  core.close();
});
