/** What both dialects have in common when a statement fails. */

/** The SQLSTATE of a database error, or null when it is none. Both drivers keep it in `code`. */
export function sqlState(error: unknown): string | null {
  if (typeof error !== "object" || error === null) return null;
  const code = (error as { code?: unknown }).code;
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : null;
}

/** The name of the constraint that a row broke, or null. */
export function brokenConstraint(error: unknown): string | null {
  if (sqlState(error)?.startsWith("23") !== true) return null;
  const { constraint, constraint_name: name } = error as { constraint?: unknown; constraint_name?: unknown };
  if (typeof name === "string") return name;
  return typeof constraint === "string" ? constraint : null;
}

const UNIQUE_VIOLATION = "23505";
const FOREIGN_KEY_VIOLATION = "23503";

/** True if `error` is a clash with this unique constraint or index. */
export function isUniqueViolation(error: unknown, constraint: string): boolean {
  return sqlState(error) === UNIQUE_VIOLATION && brokenConstraint(error) === constraint;
}

/** True if `error` says that a row is still referred to, or refers to one that is gone. */
export function isForeignKeyViolation(error: unknown): boolean {
  return sqlState(error) === FOREIGN_KEY_VIOLATION;
}

const SERIALIZATION_FAILURE = "40001";
const DEADLOCK_DETECTED = "40P01";

/** True when the same transaction, run again, may well succeed. */
export function isRetryable(error: unknown): boolean {
  const state = sqlState(error);
  return state === SERIALIZATION_FAILURE || state === DEADLOCK_DETECTED;
}

const CONNECTION_CODES = new Set([
  "CONNECTION_CLOSED",
  "CONNECTION_ENDED",
  "CONNECTION_DESTROYED",
  "CONNECT_TIMEOUT",
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ENOTFOUND",
  "ETIMEDOUT",
]);

/** True when the database cannot be reached at the moment, is starting, or is shutting down. */
export function isUnavailable(error: unknown): boolean {
  if (typeof error !== "object" || error === null) return false;
  const code = (error as { code?: unknown }).code;
  if (typeof code !== "string") return false;
  return CONNECTION_CODES.has(code) || /^(08...|53300|57P0[123])$/.test(code);
}

/** The database cannot be used as it is: the message is one clear line for the operator. */
export class DatabaseStartError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "DatabaseStartError";
  }
}

/** How often a transaction is run at most when it fails for reasons of concurrency. */
export const TX_ATTEMPTS_MAX = 6;

const RETRY_PAUSE_MS = 4;

/** Runs `attempt` again after a deadlock or serialization failure, with a growing, spread-out pause. */
export async function withRetry<T>(attempt: () => Promise<T>, random: () => number): Promise<T> {
  for (let count = 1; ; count += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (count >= TX_ATTEMPTS_MAX || !isRetryable(error)) throw error;
      const pause = RETRY_PAUSE_MS * 2 ** (count - 1) * (0.5 + random());
      await new Promise((done) => setTimeout(done, pause));
    }
  }
}
