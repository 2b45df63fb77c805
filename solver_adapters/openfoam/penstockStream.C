/*---------------------------------------------------------------------------*\
License
    Apache-2.0; see LICENSE. Links OpenFOAM (GPL-3.0-or-later) when it is built.
\*---------------------------------------------------------------------------*/

#include "penstockStream.H"
#include "addToRunTimeSelectionTable.H"

// * * * * * * * * * * * * * * Static Data Members * * * * * * * * * * * * * //

namespace Foam
{
namespace functionObjects
{
    defineTypeNameAndDebug(penstockStream, 0);
    addToRunTimeSelectionTable(functionObject, penstockStream, dictionary);
}
}


// * * * * * * * * * * * * * Private Member Functions  * * * * * * * * * * * //

Foam::string Foam::functionObjects::penstockStream::errorOf
(
    const penstock_status status
) const
{
    return status == PENSTOCK_OK ? string() : string(penstock_error(stream_));
}


Foam::string Foam::functionObjects::penstockStream::open()
{
    string problem
    (
        errorOf
        (
            penstock_connect
            (
                &stream_,
                connect_.empty() ? nullptr : connect_.c_str(),
                uint32_t(Pstream::parRun() ? Pstream::myProcNo() : 0),
                uint32_t(Pstream::parRun() ? Pstream::nProcs() : 1)
            )
        )
    );

    if (problem.empty())
    {
        problem = errorOf(penstock_begin(stream_));
    }
    if (problem.empty())
    {
        problem = announce();
    }
    if (problem.empty())
    {
        problem = sendMesh();
    }
    if (problem.empty())
    {
        Info<< type() << " " << name() << ": streaming " << flatOutput(fields_)
            << " of " << nCells_ << " cells, simulation "
            << penstock_simulation(stream_) << " attempt "
            << penstock_attempt(stream_) << endl;
    }

    return problem;
}


Foam::string Foam::functionObjects::penstockStream::sendStep()
{
    sentIndex_ = time_.timeIndex();

    const string problem(stream_ ? string() : open());

    return problem.empty() ? sendFields() : problem;
}


void Foam::functionObjects::penstockStream::raise(const string& problem) const
{
    if (!problem.empty())
    {
        FatalErrorInFunction
            << "penstock: " << problem.c_str() << nl
            << exit(FatalError);
    }
}


void Foam::functionObjects::penstockStream::finish()
{
    if (finished_)
    {
        return;
    }
    finished_ = true;

    raise(problem_);
    if (!stream_)
    {
        raise
        (
            "the run has ended before any time step was sent: executeInterval"
            " (or timeStart) in the entry " + name()
          + " of controlDict lies beyond the run"
        );
        return;
    }

    raise(errorOf(penstock_finish(stream_)));

    Info<< type() << " " << name() << ": " << step_
        << " time steps streamed" << endl;
}


// * * * * * * * * * * * * * * * * Constructors  * * * * * * * * * * * * * * //

Foam::functionObjects::penstockStream::penstockStream
(
    const word& name,
    const Time& runTime,
    const dictionary& dict
)
:
    fvMeshFunctionObject(name, runTime, dict),
    fields_(),
    connect_(),
    every_(1),
    sendInitial_(false),
    stream_(nullptr),
    step_(0),
    sentIndex_(-1),
    finished_(false),
    nCells_(0),
    firstCell_(0),
    problem_()
{
    read(dict);

    if (sendInitial_)
    {
        problem_ = sendStep();
    }
}


// * * * * * * * * * * * * * * * * Destructor  * * * * * * * * * * * * * * * //

Foam::functionObjects::penstockStream::~penstockStream()
{
    // OpenFOAM's timeControl calls end() only if the function object is also
    // executed or written at the last time step
    if
    (
        time_.timeIndex() != time_.startTimeIndex()
     && time_.value() > time_.endTime().value() - 0.5*time_.deltaTValue()
    )
    {
        finish();
    }

    penstock_close(stream_);
}


// * * * * * * * * * * * * * * * Member Functions  * * * * * * * * * * * * * //

bool Foam::functionObjects::penstockStream::read(const dictionary& dict)
{
    fvMeshFunctionObject::read(dict);

    const wordList fields(dict.get<wordList>("fields"));

    if (fields.empty())
    {
        FatalIOErrorInFunction(dict)
            << "penstock: no fields: name those to stream, such as fields (U p);"
            << exit(FatalIOError);
    }
    if (stream_ && fields != fields_)
    {
        FatalIOErrorInFunction(dict)
            << "penstock: the fields cannot change while they are streamed:"
            << " they were " << flatOutput(fields_) << ", now "
            << flatOutput(fields)
            << exit(FatalIOError);
    }

    const word control(dict.getOrDefault<word>("executeControl", "timeStep"));
    const word writing(dict.getOrDefault<word>("writeControl", "timeStep"));

    // OpenFOAM also executes a function object whenever it writes, by default
    // at every time step; execute() therefore applies executeInterval itself
    every_ = 1;
    if (control == "timeStep")
    {
        every_ = max(1, dict.getOrDefault<label>("executeInterval", 1));
    }
    else if (writing != "none")
    {
        FatalIOErrorInFunction(dict)
            << "penstock: executeControl " << control
            << " needs writeControl none; beside it, or OpenFOAM would send"
            << " at each write too"
            << exit(FatalIOError);
    }

    fields_ = fields;
    connect_ = dict.getOrDefault<fileName>("connect", fileName());
    connect_.expand();
    sendInitial_ = dict.getOrDefault("sendInitial", false);

    return true;
}


bool Foam::functionObjects::penstockStream::execute()
{
    // Solvers may run the function objects several times in a time step
    if
    (
        problem_.empty()
     && sentIndex_ != time_.timeIndex()
     && time_.timeIndex() % every_ == 0
    )
    {
        problem_ = sendStep();
    }

    raise(problem_);
    return true;
}


bool Foam::functionObjects::penstockStream::write()
{
    return true;
}


bool Foam::functionObjects::penstockStream::end()
{
    finish();
    return true;
}


// ************************************************************************* //
