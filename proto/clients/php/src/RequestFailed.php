<?php
declare(strict_types=1);

namespace Smpbus;

/** A question got no answer, or the answering side failed. */
final class RequestFailed extends BusError
{
}
