/** Money and feed over the wire, as merchants and nodes see them, on a whole control plane. */

import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import {
  ConfigFeedService,
  type WatchConfigResponse,
} from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { ReportStatus, UsageReportService } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { LogicalModelService } from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import { type Price, ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { ProviderService } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { ExportFormat, UsageService } from "../../proto/gen/tokenbill/v1/usage_service_pb.ts";
import { WalletState } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import { VirtualEndpointService } from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { audit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { watchersGauge } from "../feed/metrics.ts";
import { encode, record } from "../report/testing.ts";
import { type Protocol, startTestControlPlane, type TestControlPlane } from "../testing.ts";

/** Reads a feed until it has seen what it waits for. */
class Watch {
  readonly #stream: AsyncIterator<WatchConfigResponse>;
  readonly stop = new AbortController();
  constructor(plane: TestControlPlane, protocol: Protocol) {
    const client = plane.client(ConfigFeedService, plane.nodeToken, protocol);
    onTestFinished(() => this.stop.abort());
    this.#stream = client
      .watchConfig({ nodeId: "node_w", bootId: "boot_w" }, { signal: this.stop.signal })
      [Symbol.asyncIterator]();
  }
  async until(found: (event: WatchConfigResponse["event"]) => boolean): Promise<void> {
    for (;;) {
      const { value, done } = await this.#stream.next();
      if (done === true) throw new Error("the feed ended");
      if (found(value.event)) return;
    }
  }
}

describe.each(openTestDatabases())("money and feed over the wire on $name", ({ open }) => {
  let db: Database;
  let plane: TestControlPlane;
  let price: Price;
  let pmId: string;

  beforeAll(async () => {
    db = await open();
    plane = await startTestControlPlane(db, { env: { ALLOW_PRIVATE_UPSTREAMS: "true" } });
    const providers = plane.client(ProviderService, plane.merchantToken);
    const { provider } = await providers.createProvider({
      name: "up",
      format: ProviderFormat.OPENAI,
      baseUrl: "http://127.0.0.1:9/v1",
      credentials: { apiKey: "sk-upstream" },
    });
    const { physicalModel } = await providers.createPhysicalModel({
      providerId: provider!.id,
      name: "model",
      upstreamName: "model",
      price: { case: "simplePrice", value: { creditPerUnit: "0.05", unit: UnitKind.TOKENS, perUnits: 1000n } },
    });
    pmId = physicalModel!.id;
    price = physicalModel!.price!;
  });
  afterAll(async () => {
    expect(await audit(db, { deep: true })).toEqual([]);
    await plane.close();
    await db.close();
  });

  it.each(["connect-binary", "grpc"] as const)(
    "goes from a new VE to its usage, with %s for the node",
    async (protocol) => {
      const ves = plane.client(VirtualEndpointService, plane.merchantToken);
      const usage = plane.client(UsageService, plane.merchantToken);
      const node = plane.client(UsageReportService, plane.nodeToken, protocol);
      const watch = new Watch(plane, protocol);
      await watch.until((event) => event.case === "snapshotEnd");

      const { virtualEndpoint } = await ves.createVirtualEndpoint({
        name: "a user",
        creditBudget: "2",
        lowBalanceCredits: "1.5",
      });
      const veId = virtualEndpoint!.id;
      await watch.until(
        (event) => event.case === "delta" && event.value.upserts.some(({ kind }) => kind.value?.id === veId),
      );
      const { accessKey } = await ves.createAccessKey({ veId, name: "k" });
      const { logicalModel } = await plane
        .client(LogicalModelService, plane.merchantToken)
        .createLogicalModel({ veId, name: "gpt", targets: [{ physicalModelId: pmId, weight: 1 }] });
      await watch.until(
        (event) =>
          event.case === "delta" && event.value.upserts.some(({ kind }) => kind.value?.id === logicalModel!.id),
      );

      const boot = { nodeId: "node_w", bootId: `boot_${protocol}` };
      const more = { id: `usg_${protocol}`, accessKeyId: accessKey!.id, logicalModelId: logicalModel!.id };
      const bytes = encode({
        ...record(1n, veId, 15_000, price, more),
        arriveUnixUs: BigInt(plane.deps.now()) * 1000n,
      });
      const report = { ...boot, seq: 1n, firstRecordNo: 1n, records: [bytes], leases: [{ veId, want: "1" }] };
      const first = await node.reportUsage(report);
      expect(first.status).toBe(ReportStatus.APPLIED);
      expect(first.leases).toMatchObject([{ veId, granted: "0.625", state: WalletState.LOW, creditRemaining: "1.25" }]);
      expect((await node.reportUsage(report)).status).toBe(ReportStatus.DUPLICATE);

      expect((await ves.getBalance({ veId })).wallet).toMatchObject({
        creditRemaining: "1.25",
        settled: "0.75",
        escrowed: "0.625",
      });
      const { request } = await usage.getRequest({ id: more.id });
      expect(request).toMatchObject({
        credits: "0.75",
        accessKeyId: accessKey!.id,
        physicalModelId: pmId,
        nodeId: "node_w",
      });
      const { transfers } = await usage.listTransfers({ veId });
      expect(transfers.map(({ id, reference }) => [id, reference])[0]).toEqual([
        request!.transferId,
        `use:${boot.bootId}:1:${veId}`,
      ]);
      const { rows } = await usage.summarizeUsage({ filter: { veId } });
      expect(rows).toMatchObject([{ requests: 1n, credits: "0.75" }]);
      let csv = "";
      for await (const { data } of usage.exportUsage({ filter: { veId }, format: ExportFormat.CSV }))
        csv += new TextDecoder().decode(data);
      expect(csv.split("\r\n")).toHaveLength(3);
      const { accessKeys } = await ves.listAccessKeys({ veId });
      expect(accessKeys[0]!.lastUseTime).toBeDefined();

      const toppedUp = watch.until(
        (event) => event.case === "wallet" && event.value.veId === veId && event.value.toppedUp,
      );
      await ves.adjustCredits({ veId, credits: "5", reason: "paid" });
      await toppedUp;
      const removed = watch.until((event) => event.case === "delta" && event.value.removedIds.includes(accessKey!.id));
      await ves.revokeAccessKey({ id: accessKey!.id });
      await removed;

      await ves.deleteVirtualEndpoint({ id: veId });
      const late = await node.reportUsage({
        ...report,
        seq: 2n,
        firstRecordNo: 2n,
        records: [encode({ ...record(2n, veId, 1000, price), id: `usg_late_${protocol}` })],
      });
      expect(late.leases).toMatchObject([{ granted: "0.575", creditRemaining: "6.2" }]);
      expect((await usage.getRequest({ id: `usg_late_${protocol}` })).request!.credits).toBe("0.05");
    },
  );

  it("lets a watcher go when its node goes", async () => {
    const count = async () => (await watchersGauge.get()).values[0]!.value;
    await expect.poll(count).toBe(0);
    const watch = new Watch(plane, "connect-binary");
    await watch.until((event) => event.case === "snapshotEnd");
    expect(await count()).toBe(1);
    watch.stop.abort();
    await expect.poll(count).toBe(0);
  });
});
