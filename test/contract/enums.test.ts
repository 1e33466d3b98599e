/** Numbers that are written twice, because core imports no generated code, must stay equal to the schema's. */

import { expect, test } from "vitest";
import { Period } from "../../core/periods.ts";
import { Meter, METER_SLOTS, METERS_OF_KIND, PARENT_METER, UnitKind, UnitSource } from "../../core/meters.ts";
import { ProviderFormat } from "../../control-plane/domain/catalogue.ts";
import {
  CheckoutState,
  PaymentMethod,
  PaymentProcessor,
  PaymentState,
  RefundState,
} from "../../control-plane/domain/checkout.ts";
import { ExclusionReason } from "../../control-plane/domain/dry_run.ts";
import { LimitKind } from "../../control-plane/domain/limits.ts";
import { ERROR_CODES } from "../../control-plane/domain/errors.ts";
import { StickySource } from "../../control-plane/domain/routing.ts";
import { WalletState } from "../../control-plane/domain/wallet.ts";
import { LimitKind as NodeLimitKind } from "../../data-plane/budget/accounts.ts";
import { WalletState as NodeWalletState } from "../../data-plane/budget/wallet.ts";
import { Endpoint } from "../../data-plane/endpoints.ts";
import { HealthCause } from "../../data-plane/health.ts";
import { AttemptResult, OnDisconnect, Outcome } from "../../data-plane/outcome.ts";
import { BedrockApi, ModelApi, ProviderFormat as NodeProviderFormat } from "../../data-plane/route_types.ts";
import { HealthCauseSchema } from "../../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import {
  CheckoutStateSchema,
  PaymentMethodSchema,
  PaymentProcessorSchema,
  PaymentStateSchema,
  RefundStateSchema,
} from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import { ErrorReasonSchema } from "../../proto/gen/tokenbill/v1/error_pb.ts";
import { StickySourceSchema } from "../../proto/gen/tokenbill/v1/logical_model_pb.ts";
import { ExclusionReasonSchema } from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import { MeterSchema, UnitKindSchema, UnitSourceSchema } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import {
  BedrockApiSchema,
  LimitKindSchema,
  ModelApiSchema,
  OnDisconnectSchema,
  PeriodSchema,
  ProviderFormatSchema,
} from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { AttemptResultSchema, EndpointSchema, OutcomeSchema } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import { WalletStateSchema } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";

/** `{ METER_INPUT_TOKENS: 1 }` of the schema as `{ INPUT_TOKENS: 1 }`, without the zero that is never sent. */
function schemaNumbers(
  descriptor: { values: readonly { name: string; number: number }[] },
  prefix: string,
): Record<string, number> {
  const sent = descriptor.values.filter((value) => value.number !== 0);
  return Object.fromEntries(sent.map((value) => [value.name.replace(prefix, ""), value.number]));
}

test("meters, kinds and sources", () => {
  expect(Meter).toEqual(schemaNumbers(MeterSchema, "METER_"));
  expect(UnitKind).toEqual(schemaNumbers(UnitKindSchema, "UNIT_KIND_"));
  expect(UnitSource).toEqual(schemaNumbers(UnitSourceSchema, "UNIT_SOURCE_"));
});

test("every meter has a slot and one kind, but REQUESTS prices every kind of answer", () => {
  expect(METER_SLOTS).toBe(Math.max(...Object.values(Meter)) + 1);
  const listed = Object.values(METERS_OF_KIND).flat();
  expect(listed.toSorted((a, b) => a - b)).toEqual(Object.values(Meter).toSorted((a, b) => a - b));
  for (const [child, parent] of Object.entries(PARENT_METER)) {
    expect(METERS_OF_KIND[UnitKind.TOKENS]).toContain(Number(child));
    expect([Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS, Meter.CACHE_WRITE_TOKENS]).toContain(parent);
  }
});

test("what the data plane writes into records", () => {
  expect(Outcome).toEqual(schemaNumbers(OutcomeSchema, "OUTCOME_"));
  expect(AttemptResult).toEqual(schemaNumbers(AttemptResultSchema, "ATTEMPT_RESULT_"));
  expect(Endpoint).toEqual(schemaNumbers(EndpointSchema, "ENDPOINT_"));
});

test("what the data plane reads from the feed", () => {
  expect(OnDisconnect).toEqual(schemaNumbers(OnDisconnectSchema, "ON_DISCONNECT_"));
  expect(NodeProviderFormat).toEqual(schemaNumbers(ProviderFormatSchema, "PROVIDER_FORMAT_"));
  expect(BedrockApi).toEqual(schemaNumbers(BedrockApiSchema, "BEDROCK_API_"));
  expect(ModelApi).toEqual(schemaNumbers(ModelApiSchema, "MODEL_API_"));
  const { UNKNOWN, ...states } = NodeWalletState;
  expect(states).toEqual(schemaNumbers(WalletStateSchema, "WALLET_STATE_"));
  expect(UNKNOWN).toBe(0);
  expect(NodeLimitKind).toEqual(schemaNumbers(LimitKindSchema, "LIMIT_KIND_"));
  expect(HealthCause).toEqual(schemaNumbers(HealthCauseSchema, "HEALTH_CAUSE_"));
});

test("what the control plane's domain decides with", () => {
  expect(ProviderFormat).toEqual(schemaNumbers(ProviderFormatSchema, "PROVIDER_FORMAT_"));
  expect(WalletState).toEqual(schemaNumbers(WalletStateSchema, "WALLET_STATE_"));
  expect(ExclusionReason).toEqual(schemaNumbers(ExclusionReasonSchema, "EXCLUSION_REASON_"));
  expect(StickySource).toEqual(schemaNumbers(StickySourceSchema, "STICKY_SOURCE_"));
  expect(LimitKind).toEqual(schemaNumbers(LimitKindSchema, "LIMIT_KIND_"));
  expect(Period).toEqual(schemaNumbers(PeriodSchema, "PERIOD_"));
  const reasons = Object.keys(schemaNumbers(ErrorReasonSchema, "ERROR_REASON_")).map((name) => name.toLowerCase());
  expect([...ERROR_CODES].toSorted()).toEqual(reasons.toSorted());
});

test("what a checkout is counted in", () => {
  expect(CheckoutState).toEqual(schemaNumbers(CheckoutStateSchema, "CHECKOUT_STATE_"));
  expect(PaymentState).toEqual(schemaNumbers(PaymentStateSchema, "PAYMENT_STATE_"));
  expect(RefundState).toEqual(schemaNumbers(RefundStateSchema, "REFUND_STATE_"));
  expect(PaymentProcessor).toEqual(schemaNumbers(PaymentProcessorSchema, "PAYMENT_PROCESSOR_"));
  expect(PaymentMethod).toEqual(schemaNumbers(PaymentMethodSchema, "PAYMENT_METHOD_"));
});
