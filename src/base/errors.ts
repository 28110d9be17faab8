/**
 * Every failure that can reach a user is a WeftError: a stable code to search for, what was tried, and what to do.
 *
 * The codes are listed in error-codes.ts, from which docs/errors.md is generated; a code never changes meaning.
 */
import { ERROR_CODES, type ErrorCode } from './error-codes.ts';

export type { ErrorCode } from './error-codes.ts';

export interface WeftErrorOptions {
  /** The error underneath, kept for logs. */
  cause?: unknown;
  /** Values that belong to this one failure (names, addresses, limits); JSON only. */
  details?: Record<string, unknown>;
  /** What to do about it, when more is known here than the code's general advice. */
  hint?: string;
}

export class WeftError extends Error {
  readonly code: ErrorCode;
  readonly details: Record<string, unknown>;
  readonly #hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: WeftErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'WeftError';
    this.code = code;
    this.details = options.details ?? {};
    this.#hint = options.hint;
  }

  /** What to do about it. */
  get hint(): string {
    return this.#hint ?? ERROR_CODES[this.code].action;
  }

  /** The form that crosses a thread, a socket or a log line. */
  toJSON(): { code: ErrorCode; message: string; hint: string; details: Record<string, unknown> } {
    return { code: this.code, message: this.message, hint: this.hint, details: this.details };
  }

  /** The inverse of {@link toJSON}. */
  static fromJSON(value: {
    code: ErrorCode;
    message: string;
    hint?: string;
    details?: Record<string, unknown>;
  }): WeftError {
    return new WeftError(value.code, value.message, {
      ...(value.details && { details: value.details }),
      ...(value.hint && { hint: value.hint }),
    });
  }
}

/** Narrow an unknown thrown value to a WeftError, optionally of one code. */
export function isWeftError(error: unknown, code?: ErrorCode): error is WeftError {
  return error instanceof WeftError && (code === undefined || error.code === code);
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
