/** What the protocol needs done: the agent's `Attachments` implements it, tests use small fakes. */
import type { AddRequest, CheckRequest, CniResult, DelRequest, GcRequest } from './types.ts';

/**
 * Refusals are CniErrors, or WeftErrors, which errors.ts gives their CNI code. Calls come in
 * parallel; an implementation orders those that concern the same attachment.
 */
export interface CniBackend {
  /**
   * Attach, durably. Repeating it for the same sandbox answers the same.
   * @returns only what Weft added; what an earlier plugin of the chain made is merged by the caller
   */
  add(request: AddRequest): Promise<CniResult>;
  /** Detach and release; of what does not exist, nothing is to be done. */
  del(request: DelRequest): Promise<void>;
  /** @throws WEFT_ATTACHMENT_UNKNOWN, WEFT_ATTACHMENT_DIFFERS */
  check(request: CheckRequest): Promise<void>;
  /** Remove the network's attachments that are not named. */
  gc(request: GcRequest): Promise<void>;
  /** @throws WEFT_CNI_NOT_READY with `details.affected` when attached pods suffer too */
  status(): Promise<void>;
}
