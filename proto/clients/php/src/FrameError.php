<?php
declare(strict_types=1);

namespace Smpbus;

/** A frame that this side cannot read (or that must not be sent): the codes are those of the wire. */
final class FrameError extends BusError
{
}
