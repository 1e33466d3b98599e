/** What the control plane serves over plain HTTP besides calls, health and metrics is a list of routes. */

export type HttpMethod = "GET" | "POST";

/** A request, as a route sees it; the same on HTTP/1.1 and HTTP/2. */
export interface HttpExchange {
  /** HEAD is served as GET, without the body. */
  readonly method: HttpMethod;
  /** As it was sent, without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** Lower-case names; several of one name are joined by a comma. `host` is there on HTTP/2 too. */
  readonly headers: Readonly<Record<string, string>>;
  /** Whose request it is: behind trusted proxies, whom they say they serve. */
  readonly clientAddress: string;
  /**
   * The whole body; ask once at most.
   * @throws HttpError 413 above `max` bytes, 408 when it does not come in time, 400 when the client goes away
   */
  body(max: number): Promise<Uint8Array>;
}

export interface HttpAnswer {
  readonly status: number;
  /** Lower-case names. The length is added. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
}

export interface HttpRoute {
  /** The paths that it serves, and no others do. Other methods than its own are answered with 405. */
  matches(path: string): boolean;
  methods(path: string): readonly HttpMethod[];
  /** An HttpError is answered as it says; any other error is logged and answered with 500. */
  handle(exchange: HttpExchange): Promise<HttpAnswer>;
}

/** Why a request is not served. The message is for whoever sent it. */
export class HttpError extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.name = "HttpError";
    this.status = status;
    this.headers = headers;
  }
}
