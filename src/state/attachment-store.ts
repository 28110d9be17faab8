/**
 * Where attachments are kept durably: the interface. `src/store/attachment-store.ts` implements it over SQLite; the
 * agent allocates from what it loads here, so that an address is never given twice through a crash or a reboot.
 */
import type { Ip } from '../base/ip.ts';
import type { Attachment } from './attachment.ts';

/** An address that nobody holds any more. Kept until it is given again, for the order of reuse and the cooldown. */
export interface ReleasedAddress {
  ip: Ip;
  /** Milliseconds since the epoch. */
  releasedAt: number;
}

export interface AttachmentState {
  attachments: Attachment[];
  /** Oldest first. */
  released: ReleasedAddress[];
  /** `/proc/sys/kernel/random/boot_id` of the boot in which the attachments were made; absent in a new store. */
  bootId?: string;
}

/** Every method that returns has committed: what it did survives kill -9 and loss of power. All throw WEFT_STORE_*. */
export interface AttachmentStore extends Disposable {
  load(): AttachmentState;
  /** Record the attachment and take its addresses out of the released ones, in one commit. Replaces one of the same id. */
  put(attachment: Attachment): void;
  /** Forget attachments and file their addresses as released at that time (ms since the epoch), in one commit. Unknown ids are no error. */
  release(ids: readonly string[], releasedAt: number): void;
  /** The boot that the attachments recorded from now on belong to. */
  setBootId(bootId: string): void;
  close(): void;
}
