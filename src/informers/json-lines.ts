import { WeftError } from '../base/errors.ts';

/**
 * Bytes → lines, for watch streams: JSON texts separated by newlines, cut by the network wherever it likes.
 *
 * Lines are cut as bytes and decoded whole, so a character that arrives in two pieces is no matter (0x0A occurs in no
 * multi-byte UTF-8 sequence). A piece is looked at once, so a huge line costs no more than its length.
 */
export class LineSplitter {
  readonly #limit: number;
  #pieces: Uint8Array[] = [];
  #length = 0;

  /** @param limit Bytes of the longest line that is put together. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The non-empty lines that `chunk` completes. @throws WEFT_API_MALFORMED when a line exceeds the limit */
  *push(chunk: Uint8Array): IterableIterator<string> {
    let from = 0;
    for (;;) {
      const newline = chunk.indexOf(10, from);
      const end = newline < 0 ? chunk.length : newline;
      if (this.#length + end - from > this.#limit) {
        throw new WeftError('WEFT_API_MALFORMED', `a line of the watch exceeds ${this.#limit} bytes`, {
          details: { limit: this.#limit },
        });
      }
      if (end > from) {
        this.#pieces.push(chunk.subarray(from, end));
        this.#length += end - from;
      }
      if (newline < 0) return;
      from = newline + 1;
      if (this.#length === 0) continue;
      const line = this.#take();
      if (line.trim() !== '') yield line;
    }
  }

  /** What came after the last newline: half a line, if the stream was cut. */
  get rest(): number {
    return this.#length;
  }

  #take(): string {
    const [only] = this.#pieces;
    const bytes = this.#pieces.length === 1 ? only! : Buffer.concat(this.#pieces, this.#length);
    this.#pieces = [];
    this.#length = 0;
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  }
}
