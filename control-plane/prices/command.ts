/** `npm run prices -- import FILE`: shows what a file of prices would change at a control plane, and changes it. */

import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "../../proto/gen/tokenbill/v1/error_pb.ts";
import type { ImportPricesResponse, PriceEntry } from "../../proto/gen/tokenbill/v1/price_import_pb.ts";
import { ProviderService } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { PriceFileError } from "./json_fields.ts";
import { changeCount, countsText, previewText } from "./preview_text.ts";
import { type PriceFile, readPriceFile } from "./price_file.ts";

export const EXIT_DONE = 0;
/** It was shown, and not wanted. */
export const EXIT_DECLINED = 1;
/** It could not be done; nothing was changed. */
export const EXIT_FAILED = 2;

/** As the call takes at most. */
const ENTRIES_MAX = 2000;
const PROVIDERS_PAGE = 1000;
const CALL_TIMEOUT_MS = 60_000;

/** It could not be done; the message is for the person who asked. */
export class PricesCommandError extends Error {
  readonly code = "prices_command";
  constructor(message: string) {
    super(message);
    this.name = "PricesCommandError";
  }
}

export interface PricesCommand {
  readonly url: string;
  readonly token: string;
  /** The text of the file. */
  readonly text: string;
  /** True: nothing is changed. */
  readonly preview: boolean;
  newRequestId(): string;
  print(text: string): void;
  /** Whether to change what was shown. Null: nobody can be asked. */
  confirm(question: string): Promise<boolean | null>;
}

function clientOf({ url, token }: Pick<PricesCommand, "url" | "token">): Client<typeof ProviderService> {
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: "1.1",
    defaultTimeoutMs: CALL_TIMEOUT_MS,
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
  return createClient(ProviderService, transport);
}

function refused(error: unknown, url: string, list: PriceFile["list"]): PricesCommandError {
  const failure = ConnectError.from(error);
  const { code, rawMessage } = failure;
  const [info] = failure.findDetails(ErrorInfoSchema);
  if (code === Code.Unauthenticated || code === Code.PermissionDenied)
    return new PricesCommandError(
      `the control plane at ${url} does not take this token: name a merchant's with --token-file, or another --url`,
    );
  if (info === undefined && (code === Code.Unavailable || code === Code.DeadlineExceeded))
    return new PricesCommandError(`nothing answers at ${url}: start the control plane, or name it with --url`);
  if (code === Code.Unimplemented || info === undefined)
    return new PricesCommandError(`what answers at ${url} is no control plane of this release: name it with --url`);
  // The call counts as the file does, but for the name of the list.
  return new PricesCommandError(rawMessage.replaceAll(/\bentries\[/g, `${list}[`));
}

/** The ids of the Providers that the file names. @throws PriceFileError when there is no such Provider */
async function providerIds(client: Client<typeof ProviderService>, { providers, list }: PriceFile): Promise<string[]> {
  if (providers.every((provider) => provider === "")) return [...providers];
  const known = new Map<string, string>();
  const ids = new Set<string>();
  let pageToken = "";
  do {
    const page = await client.listProviders({ pageSize: PROVIDERS_PAGE, pageToken });
    for (const { id, name } of page.providers) {
      known.set(name, id);
      ids.add(id);
    }
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return providers.map((provider, index) => {
    if (provider === "" || ids.has(provider)) return provider;
    const id = known.get(provider);
    if (id !== undefined && list === "models") return id;
    const field = list === "models" ? "provider" : "provider_id";
    throw new PriceFileError(`${list}[${index}].${field}: there is no Provider "${provider}"`);
  });
}

function nameOf({ entries, providers, list }: PriceFile, index: number): string {
  const provider = providers[index] ?? "";
  return `${list}[${index}], ${entries[index]?.upstreamName ?? "?"}${provider === "" ? "" : ` at ${provider}`}`;
}

/**
 * Shows what would change, asks, and changes it. Gives the exit code.
 * @throws PriceFileError, PricesCommandError when it cannot be done
 */
export async function importCommand(command: PricesCommand): Promise<number> {
  const file = readPriceFile(command.text);
  if (file.entries.length > ENTRIES_MAX)
    throw new PriceFileError(
      `${file.list}: has ${file.entries.length}, and ${ENTRIES_MAX} is the most: split the file`,
    );
  const client = clientOf(command);
  const call = async <T>(fn: () => Promise<T>): Promise<T> => {
    try {
      return await fn();
    } catch (error) {
      throw error instanceof PriceFileError ? error : refused(error, command.url, file.list);
    }
  };
  const ids = await call(() => providerIds(client, file));
  const entries: PriceEntry[] = file.entries.map((entry, index) => ({ ...entry, providerId: ids[index]! }));
  const shown: ImportPricesResponse = await call(() => client.importPrices({ entries, preview: true }));
  command.print(previewText(shown, (index) => nameOf(file, index)));
  const count = changeCount(shown);
  if (command.preview || count === 0) {
    if (count === 0) command.print("There is nothing to change.\n");
    return EXIT_DONE;
  }
  const agreed = await command.confirm(`Change ${count} Physical Model${count === 1 ? "" : "s"}?`);
  if (agreed === null) throw new PricesCommandError("nobody can be asked here: give --yes to change it, or --preview");
  if (!agreed) {
    command.print("Nothing was changed.\n");
    return EXIT_DECLINED;
  }
  const requestId = command.newRequestId();
  const done = await call(() => client.importPrices({ entries, requestId }));
  command.print(`Done: ${countsText(done)}.\n`);
  return EXIT_DONE;
}
