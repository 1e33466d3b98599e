/**
 * A form with files, as transcriptions and edits of images are asked for. It is received into a spool, so that any number of
 * targets can be sent it, and read piece by piece: only its small fields are in memory.
 */

import { type ScannedBody, scanBody } from "./body.ts";
import type { Core } from "./core.ts";
import { badRequest, BODIES_UNAVAILABLE, bodyTooLarge, type ErrorAnswer, INTERNAL } from "./errors.ts";
import { measureSeconds } from "./media/seconds.ts";
import { createFormReader, formField, type MultipartForm, modelSplice, readForm } from "./multipart_form.ts";
import type { MultipartPart, MultipartReader } from "./multipart.ts";
import { boundaryOf, formType, MultipartError } from "./multipart_head.ts";
import { announcedBytes, receiveBody } from "./spool/receive.ts";
import type { Spool } from "./spool/spool.ts";
import { SpoolError } from "./spool/spool_types.ts";
import type { BodySource, Exchange } from "./transport.ts";

/** The file that is heard: the others of a form are not. */
const AUDIO_FILE = "file";
/** Speech at 32 kbit/s: what a recording is taken for whose length cannot be told, so that it is not heard for nothing. */
const GUESSED_BYTES_PER_S = 4_000;
/** Fields of a form as a JSON body would have them, for whoever reads one or the other. */
const TEXTS = ["prompt", "language", "user", "size", "quality", "response_format", "output_format"];

/** A form that was received whole. Whoever has it closes it. */
export class Upload {
  readonly contentType: string;
  readonly form: MultipartForm;
  /** The form's fields as a body. */
  readonly body: ScannedBody;
  /** How many files it has, and the bytes of all. */
  readonly files: number;
  readonly fileBytes: number;
  /** How long its recording lasts, in thousandths of a second; null: there is none, or it cannot be told. */
  seconds: number | null = null;
  /** The same for the bill: guessed by its bytes where it cannot be told. */
  heard: number | null = null;
  private readonly spool: Spool;

  /** @throws BodyError */
  constructor(contentType: string, form: MultipartForm, parts: readonly MultipartPart[], spool: Spool) {
    this.contentType = contentType;
    this.form = form;
    this.spool = spool;
    this.files = form.files.length;
    this.fileBytes = form.files.reduce((sum, { start, end }) => sum + (end - start), 0);
    const fields: Record<string, unknown> = { model: form.model.name, stream: form.stream, n: form.choices };
    for (const name of TEXTS) {
      const text = formField(parts, name);
      if (text !== null && text !== "") fields[name] = text;
    }
    this.body = scanBody(Buffer.from(JSON.stringify(fields)));
  }

  /** For one call: the form with the model's name at that upstream. */
  source(upstreamName: string): BodySource {
    return this.spool.source([modelSplice(this.form.model, upstreamName)]);
  }

  /** Finds out how long the recording lasts. */
  async measure(now: () => number): Promise<void> {
    const file = this.form.files.find(({ name }) => name === AUDIO_FILE);
    if (file === undefined) return;
    const options = { filename: file.filename ?? "", contentType: file.contentType, now };
    this.seconds = await measureSeconds(this.spool.view(file.start, file.end), options);
    this.heard = this.seconds ?? Math.ceil(((file.end - file.start) * 1000) / GUESSED_BYTES_PER_S);
  }

  /** Ends whatever reads it. Safe to call twice. */
  close(): void {
    this.spool.close();
  }
}

export interface UploadSink {
  onUpload(upload: Upload): void;
  onUploadFailure(error: ErrorAnswer): void;
}

/** Receives one form. One of the sink's methods is called, once, unless it is stopped before. */
export class UploadReader {
  private readonly core: Core;
  private readonly exchange: Exchange;
  private readonly bytesMax: number;
  /** Its recording is measured. */
  private readonly heard: boolean;
  private readonly sink: UploadSink;
  private reader: MultipartReader | null = null;
  private spool: Spool | null = null;
  private over = false;

  constructor(core: Core, exchange: Exchange, bytesMax: number, heard: boolean, sink: UploadSink) {
    this.core = core;
    this.exchange = exchange;
    this.bytesMax = bytesMax;
    this.heard = heard;
    this.sink = sink;
  }

  begin(): void {
    const { exchange, bytesMax } = this;
    const { spools } = this.core.deps;
    try {
      this.reader = createFormReader(exchange.header("content-type"));
    } catch (error) {
      return this.fail(error);
    }
    const announced = announcedBytes(exchange);
    if (announced !== null && announced > bytesMax) return this.refuse(bodyTooLarge(bytesMax));
    this.spool = spools?.create(announced) ?? null;
    if (this.spool === null) return this.refuse(BODIES_UNAVAILABLE);
    receiveBody(exchange, this.spool, bytesMax, {
      onChunk: (chunk) => this.guard(() => this.reader!.push(chunk)),
      onEnd: () => this.guard(() => this.received()),
      onFailure: (failure) => this.refuse(failure === "too_large" ? bodyTooLarge(bytesMax) : BODIES_UNAVAILABLE),
    });
  }

  /** The client is gone. */
  stop(): void {
    if (this.over) return;
    this.over = true;
    this.spool?.fail("cut");
    this.spool?.close();
  }

  private received(): void {
    const reader = this.reader!;
    reader.end();
    const form = readForm(reader);
    const upload = new Upload(
      formType(boundaryOf(this.exchange.header("content-type"))),
      form,
      reader.parts,
      this.spool!,
    );
    if (!this.heard) return this.done(upload);
    upload
      .measure(() => this.core.deps.now())
      .then(
        () => this.guard(() => this.done(upload)),
        (error: unknown) => this.fail(error),
      );
  }

  private done(upload: Upload): void {
    this.over = true;
    this.sink.onUpload(upload);
  }

  private guard(run: () => void): void {
    if (this.over) return;
    try {
      run();
    } catch (error) {
      this.fail(error);
    }
  }

  private fail(error: unknown): void {
    if (error instanceof MultipartError) return this.refuse(badRequest(error.message, error.param, error.code));
    if (error instanceof SpoolError) return this.refuse(BODIES_UNAVAILABLE);
    this.core.deps.log.error({ err: error }, "a form could not be read");
    this.refuse(INTERNAL);
  }

  private refuse(error: ErrorAnswer): void {
    if (this.over) return;
    this.over = true;
    this.spool?.close();
    this.sink.onUploadFailure(error);
  }
}
