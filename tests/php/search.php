<?php
// The search service for persons as PHP's own SoapServer gives it, and its SoapClient.
//   php -S ADDRESS search.php         serves the WSDL in $SMPBUS_WSDL; the family name says how
//   php search.php WSDL ADDRESS NAME  asks, and prints what it was told as JSON
declare(strict_types=1);

final class Search
{
    public function searchPersonServices(object $asked): array
    {
        $wanted = $asked->searchRequestServicesWrap->patientSearchParams;
        $person = [
            'id' => '1', 'surname' => $wanted->surname ?? '', 'name' => 'Анна', 'gender' => 2,
            'birthday' => '1980-01-02+03:00',
        ];
        $same = (object) $person;
        $found = match ($wanted->surname ?? '') {
            'Никто' => [],
            'Дважды' => [$same, $same],
            'Пустая' => [new stdClass(), $same],
            'Сбой' => throw new SoapFault('Server', 'Канарейкина is too much for me'),
            'Вина' => throw new SoapFault('Client', 'Канарейкина is unknown'),
            default => [$same],
        };
        return ['searchedResponseServicesWrap' => ['searchResponseWrap' => [
            ['providerName' => 'PHP', 'personsData' => $found],
        ]]];
    }
}

if (PHP_SAPI === 'cli') {
    [, $wsdl, $address, $family] = $argv;
    $options = ['location' => $address, 'cache_wsdl' => WSDL_CACHE_NONE];
    $client = new SoapClient($wsdl, $options);
    $asked = ['patientSearchParams' => ['surname' => $family]];
    try {
        $told = $client->searchPersonServices(['searchRequestServicesWrap' => $asked]);
        echo json_encode($told, JSON_UNESCAPED_UNICODE), "\n";
    } catch (SoapFault $fault) {
        echo json_encode(['fault' => $fault->faultcode, 'words' => $fault->getMessage()]), "\n";
    }
    exit;
}

$encoded = ($_GET['use'] ?? '') === 'encoded';
$options = ['cache_wsdl' => WSDL_CACHE_NONE];
if ($encoded) {
    // Without a WSDL PHP speaks RPC and SOAP encoding: what comes twice is said once.
    $server = new SoapServer(null, $options + ['uri' => 'http://endpoints.rmis.web.git.com/']);
    $same = (object) ['id' => '1', 'surname' => 'Канарейкина'];
    final class Encoded
    {
        public function searchPersonServices(): array
        {
            $same = (object) ['id' => '1', 'surname' => 'Канарейкина'];
            return [$same, $same];
        }
    }
    $server->setClass(Encoded::class);
} else {
    $server = new SoapServer(getenv('SMPBUS_WSDL'), $options);
    $server->setClass(Search::class);
}
$server->handle();
