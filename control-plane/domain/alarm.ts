/** PURE: things that must never happen, and did. */

export type AlarmKind = "price_mismatch" | "quarantine" | "audit" | "lease_overrun" | "node_written_off";

export interface NewAlarm {
  readonly kind: AlarmKind;
  /** What it is about: a boot and report, or a VE. */
  readonly subject: string;
  /** Facts as JSON; never secrets or prompts. */
  readonly detail: Readonly<Record<string, unknown>>;
}
