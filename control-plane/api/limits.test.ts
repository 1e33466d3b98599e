/** What requests must be like beyond their form: sizes, names, prices, and what an answer repeats of them. */

import { once } from "node:events";
import { connect } from "node:http2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { REQUEST_BYTES_MAX } from "./adapter.ts";
import { type Catalogue, type Clients, clientsOf, makeCatalogue } from "./test_fixture.ts";

describe.each(openTestDatabases())("limits on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  let made: Catalogue;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    api = clientsOf(cp, cp.merchantToken);
    made = await makeCatalogue(api, "limits");
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  async function post(body: unknown): Promise<string> {
    const response = await fetch(`${cp.url}/tokenbill.v1.VirtualEndpointService/CreateVirtualEndpoint`, {
      method: "POST",
      headers: { authorization: `Bearer ${cp.merchantToken}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return response.text();
  }

  test.each(["a\u0007b", "a\nb", "\u0085", " ", "\u00a0\u3000", "\t"])("%j is no name", async (name) => {
    const baseUrl = "http://127.0.0.1:9/v1";
    const operator = clientsOf(cp, cp.operatorToken);
    const calls = [
      api.providers.createProvider({ name, format: ProviderFormat.OPENAI, baseUrl }),
      api.providers.updateProvider({ id: made.providerId, name }),
      api.providers.createPhysicalModel({ providerId: made.providerId, name, upstreamName: "m" }),
      api.providers.updatePhysicalModel({ id: made.pmId, name }),
      api.ves.createVirtualEndpoint({ name }),
      api.ves.updateVirtualEndpoint({ id: made.veId, name }),
      api.models.createLogicalModel({ veId: made.veId, name, targets: [{ physicalModelId: made.pmId, weight: 1 }] }),
      api.models.updateLogicalModel({ id: made.lmId, name }),
      operator.merchants.createMerchant({ name }),
    ];
    for (const failure of await Promise.all(calls.map(failureOf))) {
      expect(failure).toMatchObject({
        message: "name: give a name without control characters that is not blank",
        info: { metadata: { field: "name", rule: "string.pattern" } },
      });
    }
    const upstream = await failureOf(
      api.providers.createPhysicalModel({ providerId: made.providerId, upstreamName: name }),
    );
    expect(upstream.info.metadata["field"]).toBe("upstream_name");
  });

  test("a name may have spaces, any script, and as many characters as it says, whatever their size", async () => {
    for (const name of [" für Ä 日本 ", "🧾".repeat(256)])
      expect((await api.ves.createVirtualEndpoint({ name })).virtualEndpoint!.name).toBe(name);
    const { physicalModel } = await api.providers.createPhysicalModel({
      providerId: made.providerId,
      upstreamName: "named by its upstream",
    });
    expect(physicalModel!.name).toBe("named by its upstream");
  });

  test("a price is below 1e9", async () => {
    const update = (creditPerUnit: string) =>
      api.providers.updatePhysicalModel({
        id: made.pmId,
        price: { case: "simplePrice", value: { creditPerUnit, unit: UnitKind.TOKENS, perUnits: 1n } },
      });
    expect(await failureOf(update("1000000000"))).toMatchObject({
      message: expect.stringContaining("below 1000000000"),
      info: { metadata: { field: "simple_price.credit_per_unit", rule: "string.pattern" } },
    });
    const { physicalModel } = await update("999999999.999999999999");
    expect(physicalModel!.price!.kind.value).toMatchObject({ creditPerUnit: "999999999.999999999999" });
  });

  test("a map's keys are only keys: NUL is refused wherever it is", async () => {
    const maps: Record<string, string>[] = [{ case: "a\0b" }, { case: "x", value: "a\0b" }];
    for (const labels of maps) {
      const failure = await failureOf(api.ves.createVirtualEndpoint({ name: "labelled", labels }));
      expect(failure.info.metadata).toMatchObject({ field: "labels", rule: "text" });
    }
  });

  test("the name of an unknown field is repeated if it looks like one", async () => {
    expect(await post({ credit_bugdet: "1" })).toContain("credit_bugdet: there is no such field in this request");
    for (const secret of ["sk-abc123", "x".repeat(41), 'a" is unknown']) {
      const text = await post({ [secret]: 1 });
      expect(text).toContain("request: it has a field that this call does not know");
      expect(text).not.toContain(secret);
    }
  });

  test("a VE that is not there is called the same by every call", async () => {
    const targets = [{ physicalModelId: made.pmId, weight: 1 }];
    const veId = "ve_none";
    const calls = [
      api.ves.getVirtualEndpoint({ id: veId }),
      api.ves.updateVirtualEndpoint({ id: veId, name: "x" }),
      api.ves.getBalance({ veId }),
      api.ves.adjustCredits({ veId, credits: "1", reason: "x" }),
      api.ves.createAccessKey({ veId }),
      api.ves.listAccessKeys({ veId }),
      api.models.createLogicalModel({ veId, name: "m", targets }),
      api.models.listLogicalModels({ veId }),
      api.usage.listTransfers({ veId }),
    ];
    for (const failure of await Promise.all(calls.map(failureOf)))
      expect(failure).toMatchObject({ reason: "not_found", message: "there is no VE with this id" });
  });
});

describe.each(openTestDatabases().filter(({ name }) => name === "pglite"))("HTTP/2 on $name", ({ open }) => {
  test("a body that is too large is answered, and nothing waits for the rest of it", async () => {
    const db = await open();
    const cp = await startTestControlPlane(db);
    const sessions = Array.from({ length: 10 }, () => connect(cp.url));
    // What is left unread when the answer ends differs from call to call.
    for (const session of sessions) {
      const stream = session.request({
        ":method": "POST",
        ":path": "/tokenbill.v1.MerchantService/GetMerchant",
        authorization: `Bearer ${cp.merchantToken}`,
        "content-type": "application/json",
      });
      stream.on("error", () => {});
      let text = "";
      stream.on("data", (data: Buffer) => (text += String(data)));
      const closed = once(stream, "close");
      stream.write(Buffer.alloc(REQUEST_BYTES_MAX * 2, 32));
      const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
      expect(headers[":status"]).toBe(429);
      await closed;
      expect(text).toContain("ERROR_REASON_LIMIT_REACHED");
    }
    // With a call still in flight this would take longer than the test may.
    await cp.server.close({ drainMs: 600_000 });
    for (const session of sessions) session.destroy();
    await cp.close();
    await db.close();
  });
});
