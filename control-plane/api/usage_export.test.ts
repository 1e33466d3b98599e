import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { create, fromJsonString } from "@bufbuild/protobuf";
import { AttemptKind, AttemptResult, Outcome, RequestRecordSchema } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import { Meter, UnitSource } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { ExportFormat } from "../../proto/gen/tokenbill/v1/usage_service_pb.ts";
import { exportHeader, exportLine, Pieces } from "./usage_export.ts";

describe("hedged requests", () => {
  const lost = create(RequestRecordSchema, {
    id: "usg_b",
    credits: "0.002",
    outcome: Outcome.HEDGE_LOST,
    hedgeOf: "usg_a",
    units: [
      { meter: Meter.IMAGES, quantity: 2n, source: UnitSource.REPORTED, size: "1024x1024", quality: "high" },
      { meter: Meter.IMAGES, quantity: 1n, source: UnitSource.REPORTED, size: "1024x1536" },
    ],
    attempts: [
      { physicalModelId: "pm_a", result: AttemptResult.STATUS, httpStatus: 503, kind: AttemptKind.FIRST },
      {
        physicalModelId: "pm_b",
        result: AttemptResult.HEDGE_LOST,
        httpStatus: 200,
        kind: AttemptKind.HEDGE,
        firstByteUs: 900n,
        detail: "overtaken",
        credits: "0.002",
      },
      // As nodes wrote it before there were kinds.
      { physicalModelId: "pm_c", result: AttemptResult.SERVED, httpStatus: 200 },
    ],
  });

  it("show in CSV what they were part of, and why each attempt was made and what it cost", () => {
    const names = exportHeader(ExportFormat.CSV).trim().split(",");
    const cells = exportLine(ExportFormat.CSV, lost).trim().split(",");
    const cell = (name: string) => cells[names.indexOf(name)];
    expect(cell("outcome")).toBe("HEDGE_LOST");
    expect(cell("hedge_of")).toBe("usg_a");
    expect(cell("images")).toBe("3");
    expect(cell("image_sizes")).toBe("1024x1024:high:2;1024x1536::1");
    expect(cell("attempts")).toBe("pm_a:STATUS:503:FIRST;pm_b:HEDGE_LOST:200:HEDGE:0.002;pm_c:SERVED:200");
  });

  it("are whole in NDJSON", () => {
    expect(fromJsonString(RequestRecordSchema, exportLine(ExportFormat.NDJSON, lost))).toEqual(lost);
  });
});

describe("formulas", () => {
  const record = create(RequestRecordSchema, { logicalModel: '=cmd("x")', credits: "0.5", upstreamRequestId: "@x" });

  it("are text in CSV", () => {
    const names = exportHeader(ExportFormat.CSV).trim().split(",");
    const cells = exportLine(ExportFormat.CSV, record).trim().split(",");
    expect(cells[names.indexOf("logical_model")]).toBe('"\'=cmd(""x"")"');
    expect(cells[names.indexOf("upstream_request_id")]).toBe("'@x");
    expect(cells[names.indexOf("credits")]).toBe("0.5");
  });

  it("are exact in NDJSON", () => {
    expect(JSON.parse(exportLine(ExportFormat.NDJSON, record))).toMatchObject({ logicalModel: '=cmd("x")' });
  });
});

describe("Pieces", () => {
  it("cuts at whole lines, never above the limit, and loses nothing", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.string({ maxLength: 30, unit: "grapheme" }).map((text) => `${text.replaceAll("\n", "")}\n`),
          { maxLength: 40 },
        ),
        (lines) => {
          const pieces = new Pieces(150);
          const parts: Buffer[] = [];
          for (const line of lines) {
            const full = pieces.add(line);
            if (full !== null) parts.push(Buffer.from(full));
          }
          const rest = pieces.take();
          if (rest !== null) parts.push(Buffer.from(rest));
          const longest = Math.max(150, ...lines.map((line) => Buffer.byteLength(line)));
          for (const part of parts) {
            expect(part.length).toBeLessThanOrEqual(longest);
            expect(part.at(-1)).toBe(10);
          }
          expect(Buffer.concat(parts).toString("utf8")).toBe(lines.join(""));
        },
      ),
    );
  });
});
